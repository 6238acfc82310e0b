"""The faces in a picture as one array, labelled by people or by a detector.

A row is [x1, y1, x2, y2, five landmarks x, y, has_landmarks, score]. Coordinates are in pixels; the edges of a box are
at integer coordinates. The landmarks are the viewer's left eye, right eye, nose, left and right mouth corner. The score
is 1 for a label made by people.
"""

from __future__ import annotations

import numpy as np

BOX = slice(0, 4)
POINTS = slice(4, 14)
HAS_POINTS, SCORE, COLUMNS = 14, 15, 16

SURE = 0.8
"""Labels with at least this score are faces; weaker labels are neither faces nor background: training ignores them."""


def rows(count: int = 0) -> np.ndarray:
    """float32 [count, 16] of zeros."""
    return np.zeros((count, COLUMNS), np.float32)


def sides(faces: np.ndarray) -> np.ndarray:
    """Side of the square with each box's area, in pixels."""
    extent = np.maximum(faces[:, 2:4] - faces[:, 0:2], 0)
    return np.sqrt(extent[:, 0] * extent[:, 1])


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [n, 4] and [m, 4] -> [n, m]."""
    shared = _shared(a, b)
    areas = [np.prod(np.maximum(boxes[:, 2:4] - boxes[:, :2], 0), axis=1) for boxes in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def share_inside(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of each box of [n, 4] that lies inside each of [m, 4] -> [n, m]."""
    area = np.prod(np.maximum(a[:, 2:4] - a[:, :2], 0), axis=1)
    return _shared(a, b) / np.maximum(area, 1e-9)[:, None]


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    return np.prod(np.maximum(high - low, 0), axis=2)
