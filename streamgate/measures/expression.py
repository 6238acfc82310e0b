"""expression: is the face neutral or slightly smiling, or does it grimace?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamgate.faces import Evidence, Face
from streamgate.measures import mouth
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

STRAIN = "strain"


def _read(output: Any) -> Mapping[str, float]:
    """A weighted sum of blendshapes, each about 0..1, minus the part that a smile contributes.

    The blendshapes are raised and lowered brows, squinting eyes, a raised upper lip, and stretched and rounded lips.
    Also returns the strain, from which grimaces are detected. A mouth in mid-word increases the strain; a natural smile
    does not, however broad it is. The factors were fitted on labelled faces and on smiling portraits.
    """
    smile = output.both("mouthSmile")
    moved = float(
        0.5 * output.signals["browInnerUp"]
        + 0.3 * output.both("browDown")
        + 0.3 * output.both("eyeSquint")
        + 0.3 * output.both("mouthUpperUp")
        + output.both("mouthStretch")
        + output.signals["mouthFunnel"]
    )
    return {"expression": moved - 0.1 * smile, STRAIN: moved - 0.7 * smile + 1.5 * mouth.opening(output)}


def _strain(face: Face, evidence: Evidence) -> float | None:
    return evidence.values.get(STRAIN)


MEASURE = MeasureSpec(
    name="expression",
    label="Expression",
    hint="neutral or slightly smiling",
    purpose="Is the expression neutral, or is it a grimace? Measured by the brows, squinting, and raised, stretched or "
    "rounded lips.",
    source="expression",
    output="signals",
    read=_read,
    better="lower",
    mapping=Sigmoid(0.172, 0.045),
    evidence=("expression", STRAIN),
    version=3,
    limits=(Limit("max", 0.55, {"grimace": "grimace"}, of=_strain, bounds=(0.0, 5.0), span=2.0),),
    frontal=True,
    at_rest=True,
    weight=0.75,
    order=114,
)
