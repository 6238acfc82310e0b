"""Draws IFQA's map as an overlay for a face."""

from __future__ import annotations

import cv2
import numpy as np

from streamgate.frames import Array

SIDE = 128
"""Side of the overlay in pixels; the network computes its map at 64 x 64."""

# The ellipse inside which the embedded network's map counts towards the score, as in convert/ifqa.py: its centre and
# semi-axes as shares of the side. Outside the ellipse, the colours are fainter but still visible, because other weights
# may use the whole picture.
_CENTRE = (0.5, 0.575)
_HALF_AXES = (0.27, 0.345)
_FADE = 0.18
_OUTSIDE = 0.22

# RGBA colours of the levels 0 (unlike a clean photograph) to 1 (like a clean photograph). Lightness increases with the
# level, so that people with colour blindness can see the order; good parts are nearly transparent. detail.css has the
# same colours.
_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
_COLOURS = np.array(
    [(200, 30, 60, 190), (240, 106, 58, 175), (248, 193, 92, 150), (223, 233, 216, 110), (191, 224, 230, 80)],
    np.float64,
)


def heatmap_png(ifqa_map: Array) -> bytes:
    """Draw a map (H, W) of values 0..1 as a PNG with alpha, SIDE x SIDE: an overlay for the grey FFHQ-aligned crop.

    The colours range from red for 0 (unlike a clean photograph) through orange and yellow to a faint pale blue for 1.
    """
    level = cv2.resize(np.asarray(ifqa_map, np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    red, green, blue, alpha = np.moveaxis(colours(np.clip(np.nan_to_num(level), 0.0, 1.0)), -1, 0)
    alpha = alpha * weight(SIDE)
    picture = np.round(np.stack([blue, green, red, alpha], axis=-1)).astype(np.uint8)
    done, data = cv2.imencode(".png", picture)
    if not done:
        raise ValueError(f"OpenCV could not encode a map of {ifqa_map.shape} as PNG")
    return data.tobytes()


def colours(levels: Array) -> Array:
    """The colours of an array of levels 0..1: RGBA 0..255, float64, in an additional last axis; see `heatmap_png`."""
    return np.stack([np.interp(levels, _LEVELS, channel) for channel in _COLOURS.T], axis=-1)


def weight(side: int) -> Array:
    """Opacity of a map of `side` x `side` cells, in 0..1: low outside the face."""
    axis = (np.arange(side) + 0.5) / side
    across, down = (axis - _CENTRE[0]) / _HALF_AXES[0], (axis - _CENTRE[1]) / _HALF_AXES[1]
    radius = np.hypot(across[None, :], down[:, None])
    inside = np.clip((1 + _FADE - radius) / (2 * _FADE), 0.0, 1.0)
    return _OUTSIDE + (1 - _OUTSIDE) * inside * inside * (3 - 2 * inside)
