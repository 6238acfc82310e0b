"""Cheap guesses used only for choosing which faces to score; no record carries them."""

from __future__ import annotations

import math

import numpy as np

from streamgate.frames import Face


def yaw_proxy(face: Face) -> float:
    """Head yaw guessed from five landmarks, degrees, > 0 when the nose moves to larger x.

    The nose tip stands about 0.55 eye distances in front of the plane of the eyes; seen along the face's own
    horizontal axis it moves by 0.55 tan(yaw) of the (foreshortened) eye distance.
    """
    eyes = face.landmarks[1] - face.landmarks[0]
    distance = float(np.hypot(*eyes))
    if distance < 1e-3:
        return 90.0
    axis = eyes / distance
    centre = (face.landmarks[:2].mean(axis=0) + face.landmarks[3:].mean(axis=0)) / 2
    offset = float(np.dot(face.landmarks[2] - centre, axis)) / distance
    return math.degrees(math.atan(offset / 0.55))
