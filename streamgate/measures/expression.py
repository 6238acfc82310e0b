"""expression: neutral or a slight smile, or a grimace?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamgate.faces import Evidence, Face
from streamgate.measures import mouth
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

STRAIN = "strain"


def _read(output: Any) -> Mapping[str, float]:
    """Raised and lowered brows, squinting eyes, a raised upper lip, stretched and rounded lips, less the part that a
    smile contributes: blendshapes, each about 0..1.

    Also returns the strain that makes a grimace. A mouth in mid-word adds to it; a natural smile, however broad, does
    not. Fitted on labelled faces and on smiling portraits.
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
    hint="neutral or a slight smile",
    purpose="Is the face at rest, or a grimace? Brows, squinting, and lips that are raised, stretched or rounded.",
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
