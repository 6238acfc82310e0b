"""occlusion: is something in front of the face?"""

from __future__ import annotations

from typing import Any

from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid


def _read(output: Any) -> float | None:
    return None if output.visible is None else float(output.visible)


MEASURE = MeasureSpec(
    name="occlusion",
    label="Uncovered",
    hint="share of the face that is not covered",
    purpose="Is something in front of the face (a mask, a hand, a microphone, text)? Measured as the share of the face "
    "that is visible.",
    source="expression",
    output="visible",
    read=_read,
    evidence=("visible",),
    unit="share",
    mapping=Sigmoid(0.965, 0.015),
    limits=(Limit("min", 50.0, {"occluded": "covered"}),),
    frontal=True,
    version=2,
    weight=0.5,
    order=100,
)
