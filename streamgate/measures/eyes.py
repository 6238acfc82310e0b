"""eyes: are both eyes open?"""

from __future__ import annotations

from typing import Any

from streamgate.measures.spec import Limit, MeasureSpec, ReferenceSpec, Sigmoid


def _read(output: Any) -> float:
    """Opening of the less open eye, divided by the distance between the eyes."""
    return float(min(output.signals["lidsLeft"], output.signals["lidsRight"]))


MEASURE = MeasureSpec(
    name="eyes",
    label="Eyes",
    hint="open",
    purpose="Are both eyes open? Measured as the opening of the less open eye, compared with how far this person's "
    "eyes are typically open.",
    source="expression",
    output="signals",
    read=_read,
    evidence=("eyes_open",),
    mapping=Sigmoid(0.71, 0.082),
    reference=ReferenceSpec("eyes_usual", population=0.07, lowest=0.07),
    limits=(Limit("min", 32.0, {"eyes_closed": "eyes closed"}),),
    frontal=True,
    version=4,
    weight=1.25,
    order=110,
)
