"""Box geometry: overlap and enlargement."""

from __future__ import annotations

import numpy as np

from streamgate.frames import Array


def iou(first: Array, second: Array) -> Array:
    """Intersection over union of every pair: (N, 4) and (M, 4) boxes -> (N, M), 0..1."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    union = _area(first)[:, None] + _area(second)[None, :] - shared
    return np.where(union > 0, shared / np.maximum(union, 1e-9), 0.0)


def grown(boxes: Array, share: float) -> Array:
    """Boxes (N, 4), each enlarged on every side by `share` of its width or height."""
    margin = (boxes[:, 2:] - boxes[:, :2]) * share
    return np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)


def square(box: Array, margin: float) -> Array:
    """The square with the same centre as a box (4,); its side is the longer side of the box plus two margins.

    `margin` is relative to the longer side.
    """
    centre = (box[:2] + box[2:]) / 2
    half = (0.5 + margin) * float(max(box[2] - box[0], box[3] - box[1]))
    return np.concatenate([centre - half, centre + half])


def _area(boxes: Array) -> Array:
    return np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)
