"""roll: is the head tilted?"""

from __future__ import annotations

import math

from streamgate.faces import Evidence, Face
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid


def _raw(evidence: Evidence) -> float | None:
    """Degrees; positive if the head is tilted clockwise on the screen."""
    return evidence.pose.roll if evidence.pose else None


def _guess(face: Face, evidence: Evidence) -> float:
    across, down = (float(value) for value in face.landmarks[1] - face.landmarks[0])
    return math.degrees(math.atan2(down, across))


MEASURE = MeasureSpec(
    name="roll",
    label="Roll",
    hint="tilted",
    purpose="Is the head tilted? Alignment rotates the face upright, but shoulders and neck still show the tilt.",
    source="pose",
    output="pose",
    raw=_raw,
    unit="degrees",
    better="near zero",
    mapping=Sigmoid(12.9, 3.7),
    limits=(
        Limit("max", 20.0, {"roll": "tilted"}, of="raw", bounds=(0.0, 180.0), positive=True, span=90.0),
    ),
    guess=_guess,
    version=2,
    weight=1.8,
    order=50,
)
