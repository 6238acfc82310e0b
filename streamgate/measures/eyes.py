"""eyes: open or closed."""

from __future__ import annotations

from typing import Any

from streamgate.measures.spec import Limit, MeasureSpec


def _read(output: Any) -> float | None:
    return None if output.eyes is None else float(output.eyes)


MEASURE = MeasureSpec(
    name="eyes",
    label="Eyes",
    hint="open",
    purpose="Are both eyes open? The probability that they are.",
    source="recognizer",
    output="eyes",
    read=_read,
    evidence=("eyes_open",),
    limits=(Limit("min", 50.0, {"eyes_closed": "eyes closed"}),),
    frontal=True,
    order=110,
)
