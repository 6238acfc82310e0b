"""expression: neutral or a slight smile, or a grimace?"""

from __future__ import annotations

from typing import Any

from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid


def _read(output: Any) -> float:
    """Raised and lowered brows, squinting eyes, a raised upper lip, stretched and rounded lips, less what a smile has
    of them: blendshapes, each about 0..1.
    """
    return float(
        0.5 * output.signals["browInnerUp"]
        + 0.3 * output.both("browDown")
        + 0.3 * output.both("eyeSquint")
        + 0.3 * output.both("mouthUpperUp")
        + output.both("mouthStretch")
        + output.signals["mouthFunnel"]
        - 0.1 * output.both("mouthSmile")
    )


MEASURE = MeasureSpec(
    name="expression",
    label="Expression",
    hint="neutral or a slight smile",
    purpose="Is the face at rest, or a grimace? Brows, squinting, and lips that are raised, stretched or rounded.",
    source="expression",
    output="signals",
    read=_read,
    better="lower",
    mapping=Sigmoid(0.172, 0.045),
    version=2,
    limits=(Limit("max", 0.4, {"grimace": "grimace"}, of="raw", bounds=(0.0, 5.0), span=2.0),),
    frontal=True,
    at_rest=True,
    weight=0.75,
    order=114,
)
