"""exposure: is there light enough on the face, and not too much?"""

from __future__ import annotations

from collections.abc import Mapping

from streamgate.faces import Evidence
from streamgate.frames import Array
from streamgate.measures.faceview import FaceView, quantile
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

FULL = 90.0
"""Levels between the dark and the bright parts of a face of good contrast at least; each stop less of light takes a
quarter of them."""
NOISE_WEIGHT = 6.0
"""Levels that a noise of deviation 1 takes from the contrast."""
BURNT, BURNT_WEIGHT = 250, 1.5
"""Luma from which a pixel holds nothing any more, and what a share of such pixels takes."""
MIDDLE = 128.0
"""Mean luma that parts dark from bright where the exposure is bad."""


def exposure_of(luma: Array, small: Array, noise: float) -> float:
    """How well a face is lit, 0..1, of its luma uint8 (h, w), and the same smaller with what noise that has.

    From the span between the 5th and the 95th percentile, noise taken off, and the share of burnt pixels. No level
    itself counts: what skin reflects is no fault of the light. The span is the same for dark and for pale skin (median
    147 of people with dark skin, 145 with pale skin), and with each stop less of light it falls alike.
    """
    import cv2  # with the first face, not with every configuration

    burnt = cv2.countNonZero(cv2.inRange(luma, BURNT, 255)) / luma.size
    span = quantile(small, 0.95) - quantile(small, 0.05)
    contrast = min(1.0, max(0.0, span - NOISE_WEIGHT * noise) / FULL)
    return contrast * max(0.0, 1.0 - BURNT_WEIGHT * burnt)


def _read(view: FaceView) -> Mapping[str, float] | None:
    import cv2  # with the first face, not with every configuration

    luma = view.core
    if min(luma.shape) < 8:
        return None
    return {"exposure": exposure_of(luma, view.small, view.noise), "mean_luma": cv2.mean(luma)[0]}


def _side(evidence: Evidence) -> str:
    return "dark" if evidence.values.get("mean_luma", 0.0) < MIDDLE else "bright"


MEASURE = MeasureSpec(
    name="exposure",
    label="Exposure",
    hint="contrast, less noise and what is burnt out",
    purpose="Is there light on the face, and not too much? Its contrast, less its noise and what is burnt out.",
    read=_read,
    evidence=("exposure", "mean_luma"),
    unit="share",
    mapping=Sigmoid(0.47, 0.14),
    limits=(Limit("min", 55.0, {"dark": "dark", "bright": "too bright"}, choose=_side),),
    version=2,
    weight=0.45,
    order=90,
)
