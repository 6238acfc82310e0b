"""RetinaFace's prior boxes and what its figures mean relative to them, in pixels of the network's input.

Deng et al. 2020: two square priors in each cell at strides 8, 16 and 32; variances 0.1 (shifts) and 0.2
(log sizes). Upstream normalises by the picture's size and multiplies by it again; pixels cancel that.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from streamgate.frames import Array

STRIDES = (8, 16, 32)
SIDES = ((16, 32), (64, 128), (256, 512))
SHIFT_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
VAST = 320.0
"""Sides of boxes, pixels of the input, from which the network no longer sees a face as a whole: its guesses scatter."""
VAST_OVERLAP = 0.15
"""Two faces that large do not overlap by more in any picture."""


@lru_cache(maxsize=16)
def priors(height: int, width: int) -> Array:
    """Centre x, centre y and side of every prior, float32 (P, 3); both sides must be multiples of 32.

    The array is shared between callers and read-only.
    """
    levels = []
    for stride, sides in zip(STRIDES, SIDES, strict=True):
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        centres = (np.stack([x, y], axis=-1).reshape(-1, 1, 2) + 0.5) * stride
        cells = len(centres)
        column = np.broadcast_to(np.array(sides, float)[None, :, None], (cells, len(sides), 1))
        levels.append(np.concatenate([np.repeat(centres, len(sides), axis=1), column], axis=2).reshape(-1, 3))
    found = np.concatenate(levels).astype(np.float32)
    found.flags.writeable = False
    return found


def decode(loc: Array, landmarks: Array, chosen: Array) -> tuple[Array, Array]:
    """Boxes (K, 4) and landmarks (K, 5, 2) in input pixels from figures (K, 4), (K, 10) and priors (K, 3)."""
    centres, sides = chosen[:, :2], chosen[:, 2:]
    middle = centres + loc[:, :2] * SHIFT_VARIANCE * sides
    half = sides * np.exp(loc[:, 2:] * SIZE_VARIANCE) / 2
    points = centres[:, None] + landmarks.reshape(-1, 5, 2) * SHIFT_VARIANCE * sides[:, None]
    return np.concatenate([middle - half, middle + half], axis=1), points


def suppress(boxes: Array, scores: Array, overlap: float) -> Array:
    """Greedy non-maximum suppression: indices kept, best score first; of equal scores the earlier prior wins.

    A box goes when its intersection over union with a kept one exceeds `overlap`; where both are taller than `VAST`,
    `VAST_OVERLAP` if that is less.
    """
    order = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = boxes[order].T.astype(np.float64)
    areas = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    vast = y2 - y1 > VAST
    alive = np.ones(len(order), bool)
    kept = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        wide = np.minimum(x2[i], x2[i + 1 :]) - np.maximum(x1[i], x1[i + 1 :])
        high = np.minimum(y2[i], y2[i + 1 :]) - np.maximum(y1[i], y1[i + 1 :])
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        union = areas[i] + areas[i + 1 :] - shared
        allowed = np.where(vast[i + 1 :], min(overlap, VAST_OVERLAP), overlap) if vast[i] else overlap
        alive[i + 1 :] &= shared <= allowed * union
    return order[kept]
