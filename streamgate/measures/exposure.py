"""exposure: neither drowned in black nor burnt out."""

from __future__ import annotations

from collections.abc import Mapping

from streamgate.frames import Evidence
from streamgate.measures.faceview import FaceView
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

DARKEST, BRIGHTEST = 40, 220
MIDDLE = 128.0
"""Mean luma that parts dark from bright where the exposure is bad."""


def _read(view: FaceView) -> Mapping[str, float] | None:
    import cv2  # with the first face, not with every configuration

    luma = view.core
    if min(luma.shape, default=0) < 8:
        return None
    return {
        "exposure": cv2.countNonZero(cv2.inRange(luma, DARKEST, BRIGHTEST)) / luma.size,
        "mean_luma": float(cv2.mean(luma)[0]),
    }


def _side(evidence: Evidence) -> str:
    return "dark" if evidence.values.get("mean_luma", 0.0) < MIDDLE else "bright"


MEASURE = MeasureSpec(
    name="exposure",
    label="Exposure",
    hint="share that is neither dark nor burnt out",
    purpose="Is there light on the face, and not too much? Share of its luma in 40..220.",
    read=_read,
    evidence=("exposure", "mean_luma"),
    unit="share",
    mapping=Sigmoid(0.583, 0.151),
    limits=(Limit("min", 55.0, {"dark": "dark", "bright": "too bright"}, choose=_side),),
    weight=0.45,
    order=90,
)
