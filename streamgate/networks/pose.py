"""Head pose: yaw, pitch and roll, with the signs that docs/design.md 5 defines."""

from __future__ import annotations

import math

import numpy as np

from streamgate.frames import Array
from streamgate.networks.recognizer import CROP_SIDE as ALIGNED_SIDE
from streamgate.networks.sessions import Session, check_pictures

CROP_SIDE = 64
MARGIN = 0.1
"""Margin of the crop around the face box on each side, as a share of the box's side."""


def crop_box(box: Array) -> Array:
    """The region to crop for a face box [x1, y1, x2, y2]; warp it with `alignment.box_matrix`."""
    x1, y1, x2, y2 = (float(value) for value in box)
    dx, dy = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
    return np.array([x1 - dx, y1 - dy, x2 + dx, y2 + dy])


def upright(angles: Array, matrix: Array) -> Array:
    """Convert angles (3,) measured in a crop to the source picture; `matrix` (2, 3) maps source to crop.

    Alignment rotated the picture by atan2(b, a), where [[a, -b], [b, a]] is the linear part of `matrix`, and so changed
    the head's roll.
    """
    turned = math.degrees(math.atan2(float(matrix[1, 0]), float(matrix[0, 0])))
    return np.asarray(angles, np.float64) - np.array([0.0, 0.0, turned])


def takes_aligned(session: Session) -> bool:
    """Whether a pose network takes ArcFace-aligned crops of 112 px, like a recognizer.

    If so, its angles are relative to the crop (convert them with `upright`). Otherwise, the network takes `crop_box`
    regions of 64 px.
    """
    return "recognizer" in session.weights.roles


def head_poses(session: Session, crops: Array) -> Array:
    """Yaw, pitch and roll in degrees, float32 (N, 3), of crops RGB uint8 (N, S, S, 3); `takes_aligned` determines S."""
    crops = check_pictures(crops, ALIGNED_SIDE if takes_aligned(session) else CROP_SIDE)
    signs = np.asarray(session.weights.output.get("signs", (1.0, 1.0, 1.0)), np.float32)
    return np.asarray(session.run_pictures(crops)["pose"] * signs)
