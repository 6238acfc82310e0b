"""pitch: does the head look up or down?"""

from __future__ import annotations

from streamgate.faces import Evidence, Face
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid


def _raw(evidence: Evidence) -> float | None:
    """Degrees; positive if the nose points to smaller y."""
    return evidence.pose.pitch if evidence.pose else None


def _guess(face: Face, evidence: Evidence) -> float | None:
    return evidence.values.get("head_pitch")


MEASURE = MeasureSpec(
    name="pitch",
    label="Pitch",
    hint="turned up or down",
    purpose="Does the head look up or down?",
    source="pose",
    output="pose",
    raw=_raw,
    unit="degrees",
    better="near zero",
    mapping=Sigmoid(18.0, 3.9),
    limits=(
        Limit("max", 20.0, {"pitch": "up or down"}, of="raw", bounds=(0.0, 90.0), positive=True, span=90.0),
    ),
    guess=_guess,
    version=2,
    weight=0.9,
    order=40,
)
