"""lips: relaxed, or pursed?"""

from __future__ import annotations

from typing import Any

from streamgate.measures.spec import MeasureSpec, ReferenceSpec, Sigmoid


def _read(output: Any) -> float:
    """Width of the mouth over the distance between the eyes."""
    return float(output.signals["mouthWidth"])


MEASURE = MeasureSpec(
    name="lips",
    label="Lips",
    hint="relaxed",
    purpose="Are the lips relaxed, or pursed and rounded? The mouth's width over what is usual for this person.",
    source="expression",
    output="signals",
    read=_read,
    evidence=("mouth_width",),
    mapping=Sigmoid(0.875, 0.03),
    reference=ReferenceSpec("mouth_width_usual", population=0.78, lowest=0.6, percentile=50.0),
    at_rest=True,
    order=113,
)
