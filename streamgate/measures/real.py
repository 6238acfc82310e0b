"""real: is it the face of a real person, or is it drawn, rendered or sculpted?"""

from __future__ import annotations

from typing import Any

from streamgate.measures.spec import Limit, MeasureSpec, ReferenceSpec, Sigmoid


def _read(output: Any) -> float | None:
    return None if output.real is None else float(output.real)


MEASURE = MeasureSpec(
    name="real",
    label="Real",
    hint="photographed, not drawn",
    purpose="Is it the face of a real person, not of a drawing, a painting, a render, a puppet or a statue?",
    source="expression",
    output="real",
    read=_read,
    mapping=Sigmoid(0.5, 0.1),
    # Either all faces of a track are real or none is, and the median of their values is more reliable than one value.
    reference=ReferenceSpec("real_usual", population=None, lowest=0.0, percentile=50.0),
    limits=(Limit("min", 50.0, {"unreal": "not a real face"}),),
    # Used only as a limit: the network's confidence does not tell which of two pictures of real faces is better.
    weight=0.0,
    frontal=True,
    order=105,
)
