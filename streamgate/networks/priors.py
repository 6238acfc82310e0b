"""RetinaFace's prior boxes, and the decoding of outputs that are relative to them, in pixels of the network's input.

As in Deng et al. 2020, each cell at strides 8, 16 and 32 has two square priors; variances are 0.1 (shifts) and 0.2 (log
sizes). The original code divides by the picture's size and multiplies by it again; computing in pixels avoids both.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from streamgate.frames import Array

STRIDES = (8, 16, 32)
SIDES = ((16, 32), (64, 128), (256, 512))
SHIFT_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
VAST = 320.0
"""Box height, in pixels of the input, above which the network does not see whole faces, so that its boxes vary widely.
"""
VAST_OVERLAP = 0.15
"""Maximum intersection over union of the boxes of two real faces in one picture, if both boxes are taller than `VAST`.
"""


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
    """Boxes (K, 4) and landmarks (K, 5, 2), in input pixels, from the outputs (K, 4) and (K, 10) and priors (K, 3)."""
    centres, sides = chosen[:, :2], chosen[:, 2:]
    middle = centres + loc[:, :2] * SHIFT_VARIANCE * sides
    half = sides * np.exp(loc[:, 2:] * SIZE_VARIANCE) / 2
    points = centres[:, None] + landmarks.reshape(-1, 5, 2) * SHIFT_VARIANCE * sides[:, None]
    return np.concatenate([middle - half, middle + half], axis=1), points


def suppress(boxes: Array, scores: Array, overlap: float) -> Array:
    """Greedy non-maximum suppression: the indices to keep, best score first; ties go to the earlier prior.

    A box is removed if its intersection over union with a kept box exceeds `overlap`. If both boxes are taller than
    `VAST`, the lower of `overlap` and `VAST_OVERLAP` applies.
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
