"""real: is it a photographed face, or one that is drawn, rendered or sculpted?"""

from __future__ import annotations

from typing import Any

from streamgate.measures.spec import Limit, MeasureSpec, ReferenceSpec, Sigmoid


def _read(output: Any) -> float | None:
    return None if output.real is None else float(output.real)


MEASURE = MeasureSpec(
    name="real",
    label="Real",
    hint="photographed, not drawn",
    purpose="Is it a photographed face? A drawing, a painting, a render, a puppet or a statue is not.",
    source="expression",
    output="real",
    read=_read,
    mapping=Sigmoid(0.5, 0.1),
    # What a track shows is real or not as a whole: the median is far more certain than one face.
    reference=ReferenceSpec("real_usual", population=None, lowest=0.0, percentile=50.0),
    limits=(Limit("min", 50.0, {"unreal": "not a real face"}),),
    # It only filters: how sure the network is does not tell which of two real faces is the better picture.
    weight=0.0,
    frontal=True,
    order=105,
)
