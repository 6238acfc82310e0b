"""roll: is the head tilted?"""

from __future__ import annotations

from streamgate.frames import Evidence
from streamgate.measures.spec import MeasureSpec
from streamgate.measures.yaw import squared_cosine


def _raw(evidence: Evidence) -> float | None:
    """Degrees, > 0 when the head tilts clockwise on the screen."""
    return evidence.pose.roll if evidence.pose else None


MEASURE = MeasureSpec(
    name="roll",
    label="Roll",
    hint="tilted",
    purpose="Is the head tilted? It weighs nothing: alignment removes it.",
    source="pose",
    output="pose",
    raw=_raw,
    unit="degrees",
    better="near zero",
    mapping=squared_cosine,
    weight=0.0,
    order=50,
)
