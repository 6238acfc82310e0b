"""yaw: is the head turned to the side?"""

from __future__ import annotations

import math

import numpy as np

from streamgate.faces import Evidence, Face
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid


def yaw_proxy(face: Face) -> float:
    """Head yaw estimated from five landmarks, in degrees; positive if the nose points to larger x.

    The tip of the nose is about 0.55 eye distances in front of the plane of the eyes, so it moves along the face's
    horizontal axis by 0.55 tan(yaw) times the (foreshortened) eye distance.
    """
    eyes = face.landmarks[1] - face.landmarks[0]
    distance = float(np.hypot(*eyes))
    if distance < 1e-3:
        return 90.0
    axis = eyes / distance
    centre = (face.eye_centre + face.mouth_centre) / 2
    offset = float(np.dot(face.landmarks[2] - centre, axis)) / distance
    return math.degrees(math.atan(offset / 0.55))


def _raw(evidence: Evidence) -> float | None:
    """Degrees; positive if the nose points to larger x."""
    return evidence.pose.yaw if evidence.pose else None


def _guess(face: Face, evidence: Evidence) -> float:
    return evidence.values.get("head_yaw", yaw_proxy(face))


MEASURE = MeasureSpec(
    name="yaw",
    label="Yaw",
    hint="turned to the side",
    purpose="Is the head turned to the side?",
    source="pose",
    output="pose",
    raw=_raw,
    unit="degrees",
    better="near zero",
    mapping=Sigmoid(12.9, 3.6),
    limits=(
        Limit("max", 20.0, {"yaw": "turned aside"}, of="raw", bounds=(0.0, 90.0), positive=True, span=90.0),
    ),
    guess=_guess,
    version=2,
    weight=2.0,
    order=30,
)
