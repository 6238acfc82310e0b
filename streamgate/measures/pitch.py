"""pitch: does the head look up or down?"""

from __future__ import annotations

from streamgate.frames import Evidence
from streamgate.measures.spec import Limit, MeasureSpec
from streamgate.measures.yaw import squared_cosine


def _raw(evidence: Evidence) -> float | None:
    """Degrees, > 0 when the nose moves to smaller y."""
    return evidence.pose.pitch if evidence.pose else None


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
    mapping=squared_cosine,
    limits=(
        Limit("max", 25.0, {"pitch": "up or down"}, of="raw", bounds=(0.0, 90.0), positive=True, span=90.0),
    ),
    weight=0.5,
    order=40,
)
