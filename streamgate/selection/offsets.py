"""How far the detector's landmarks of a track are off those that the expression network finds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from streamgate.faces import Face
from streamgate.frames import Array

FADE_S = 0.35
"""Seconds after which the nearest face's offset still counts 37 %, the track's usual one the rest."""
REMEMBERED = 32
FEWEST = 3
"""Faces that tell what is usual for a track; while there are fewer, the usual offset is taken to be none."""


class LandmarkOffsets:
    """Corrects landmarks of a track's next faces by what the expression network found in the last ones.

    Part of the offset is the person's (with some glasses an eighth of the distance between the eyes), part is the
    detector's error at this moment, which faces close in time share. So the offset of the face nearest in time is
    carried over and fades to the median of the track's faces. Offsets are in units of the distance between the eyes and
    turn with them.
    """

    def __init__(self) -> None:
        self._by_pts: dict[float, Array] = {}
        self._median: Array | None = None

    def __bool__(self) -> bool:
        return bool(self._by_pts)

    def add(self, pts_seconds: float, detected: Face, landmarks: Array) -> None:
        """Learn from a face: where the detector put its landmarks, and where the network found them, (5, 2) pixels."""
        eyes = _between_eyes(detected)
        if not eyes:
            return
        self._median = None
        self._by_pts[pts_seconds] = _as_complex(landmarks - detected.landmarks) / eyes
        if len(self._by_pts) > REMEMBERED:
            del self._by_pts[next(iter(self._by_pts))]

    def corrected(self, pts_seconds: float, detected: Face) -> Face:
        """A face as the detector found it, with its landmarks where the network can be expected to find them."""
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
        """The median of the offsets, by coordinate; `np.median` takes ten times as long for so few."""
        if self._median is None:
            known = np.sort(np.stack(list(self._by_pts.values())).view(np.float64), axis=0)
            middle: Array = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2
            self._median = middle.view(np.complex128)
        return self._median


def _as_complex(points: Array) -> Array:
    """Points (N, 2) as x + iy (N,), so that a product scales and turns them."""
    return np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0]


def _between_eyes(face: Face) -> complex:
    """From the left eye to the right."""
    return complex(_as_complex(face.landmarks[1:2] - face.landmarks[:1])[0])
