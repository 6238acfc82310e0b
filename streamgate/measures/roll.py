"""roll: is the head tilted?"""

from __future__ import annotations

from streamgate.frames import Evidence
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid


def _raw(evidence: Evidence) -> float | None:
    """Degrees, > 0 when the head tilts clockwise on the screen."""
    return evidence.pose.roll if evidence.pose else None


MEASURE = MeasureSpec(
    name="roll",
    label="Roll",
    hint="tilted",
    purpose="Is the head tilted? Alignment turns the picture upright; shoulders and neck show it all the same.",
    source="pose",
    output="pose",
    raw=_raw,
    unit="degrees",
    better="near zero",
    mapping=Sigmoid(17.0, 4.0),
    limits=(
        Limit("max", 20.0, {"roll": "tilted"}, of="raw", bounds=(0.0, 180.0), positive=True, span=90.0),
    ),
    weight=0.5,
    version=2,
    order=50,
)
