"""ifqa: does the picture look like a clean photograph of a real face? (docs/design.md 4.2)"""

from __future__ import annotations

from typing import Any

from streamgate.measures.spec import Limit, MeasureSpec


def _read(output: Any) -> float:
    return float(output.value)


MEASURE = MeasureSpec(
    name="ifqa",
    label="IFQA",
    hint="similarity to a clean photograph",
    purpose="Does the picture look like a clean photograph of a real face? Measured as the mean of a discriminator's "
    "realness map.",
    source="ifqa",
    output="score",
    read=_read,
    limits=(Limit("min", 10.2, {"ifqa_low": "not clean"}),),
    weight=0.5,
    order=20,
)
