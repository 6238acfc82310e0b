"""mouth: is the mouth closed, or is it open, for example in the middle of a word?"""

from __future__ import annotations

from typing import Any

from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid


def opening(output: Any) -> float:
    """How far the mouth is open.

    The value is the gap between the lips, divided by the distance between the eyes, plus half of the blendshape
    `jawOpen` (0..1), minus a tenth of the mean of the two `mouthSmile` blendshapes (0..1). The smile is subtracted
    because a person whose smile shows teeth is not necessarily speaking.
    """
    at = output.signals
    return float(at["lipGap"] + 0.5 * at["jawOpen"] - 0.1 * output.both("mouthSmile"))


MEASURE = MeasureSpec(
    name="mouth",
    label="Mouth",
    hint="closed",
    purpose="Is the mouth closed, or is it open, for example in the middle of a word? Measured by how far apart the "
    "lips are and how far the jaw is open.",
    source="expression",
    output="signals",
    read=opening,
    better="lower",
    mapping=Sigmoid(-0.02, 0.038),
    limits=(Limit("max", 0.25, {"mouth_open": "mouth open"}, of="raw", bounds=(0.0, 2.0), span=1.0),),
    frontal=True,
    at_rest=True,
    weight=1.0,
    order=112,
)
