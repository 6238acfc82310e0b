"""Estimates how far the detector's landmarks of a track deviate from those that the expression network finds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from streamgate.faces import Face
from streamgate.frames import Array

FADE_S = 0.35
"""Time after which the nearest face's offset has a weight of 37 %, and the track's median offset has the rest."""
REMEMBERED = 32
FEWEST = 3
"""Minimum number of faces for a median offset of the track; with fewer faces, zero is used instead."""


class LandmarkOffsets:
    """Corrects the landmarks of a track's next faces by the offsets that the expression network found in the previous
    faces.

    One part of the offset depends on the person (with some glasses, it is an eighth of the distance between the eyes).
    The other part is the detector's current error, which faces close in time share. Therefore, the correction is the
    offset of the face nearest in time, and it approaches the track's median offset as the distance in time grows.
    Offsets are in units of the distance between the eyes and rotate with the eyes.
    """

    def __init__(self) -> None:
        self._by_pts: dict[float, Array] = {}
        self._median: Array | None = None

    def __bool__(self) -> bool:
        return bool(self._by_pts)

    def add(self, pts_seconds: float, detected: Face, landmarks: Array) -> None:
        """Add the offset of a face: `detected` has the detector's landmarks, `landmarks` (5, 2) are the network's, in
        pixels."""
        eyes = _between_eyes(detected)
        if not eyes:
            return
        self._median = None
        self._by_pts[pts_seconds] = _as_complex(landmarks - detected.landmarks) / eyes
        if len(self._by_pts) > REMEMBERED:
            del self._by_pts[next(iter(self._by_pts))]

    def corrected(self, pts_seconds: float, detected: Face) -> Face:
        """The `detected` face with its landmarks moved to where the network is expected to find them."""
        if not self._by_pts:
            return detected
        nearest = min(self._by_pts, key=lambda pts: abs(pts - pts_seconds))
        share = math.exp(-abs(nearest - pts_seconds) / FADE_S)
        offset: Array = share * self._by_pts[nearest]
        if len(self._by_pts) >= FEWEST:
            offset = offset + (1 - share) * self._usual()
        moved = offset * _between_eyes(detected)
        landmarks = detected.landmarks + np.column_stack([moved.real, moved.imag])
        return replace(detected, landmarks=landmarks.astype(np.float32))

    def _usual(self) -> Array:
        """The median of the offsets, per coordinate; for so few values, `np.median` would take ten times as long."""
        if self._median is None:
            known = np.sort(np.stack(list(self._by_pts.values())).view(np.float64), axis=0)
            middle: Array = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2
            self._median = middle.view(np.complex128)
        return self._median


def _as_complex(points: Array) -> Array:
    """Points (N, 2) as complex numbers x + iy (N,), so that a multiplication scales and rotates them."""
    return np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0]


def _between_eyes(face: Face) -> complex:
    """The vector from the left eye to the right eye."""
    return complex(_as_complex(face.landmarks[1:2] - face.landmarks[:1])[0])
