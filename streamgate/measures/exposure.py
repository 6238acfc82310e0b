"""exposure: is there enough light on the face, and not too much?"""

from __future__ import annotations

from collections.abc import Mapping

from streamgate.faces import Evidence
from streamgate.frames import Array
from streamgate.measures.face_view import FaceView, quantiles
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

FULL = 90.0
"""Minimum number of luma levels between the dark and the bright parts of a face with good contrast. Each stop of
underexposure reduces the number of levels of a face by a quarter."""
NOISE_WEIGHT = 6.0
"""Luma levels that are subtracted from the contrast for each unit of the noise's standard deviation."""
BURNT, BURNT_WEIGHT = 250, 1.5
"""Minimum luma of a pixel that counts as blown out, and the weight of the share of blown-out pixels."""
MIDDLE = 128.0
"""Mean luma below which a face with bad exposure is "dark"; otherwise it is "bright"."""


def exposure_of(luma: Array, small: Array, noise: float) -> float:
    """How well a face is lit, 0..1.

    Args:
        luma: luma of the face, uint8 (h, w).
        small: `luma`, scaled down as `FaceView.small` is.
        noise: standard deviation of the noise of `small`.

    The value is computed from the span between the 5th and the 95th percentile, minus the noise, and from the share of
    blown-out pixels. Absolute levels do not count, because they depend on how much light the skin reflects. The span is
    about the same for dark skin (median 147) and pale skin (median 145), and a stop of underexposure reduces it equally
    for both.
    """
    import cv2  # imported here so that reading a configuration does not load OpenCV

    burnt = cv2.countNonZero(cv2.inRange(luma, BURNT, 255)) / luma.size
    dark, light = quantiles(small, 0.05, 0.95)
    span = light - dark
    contrast = min(1.0, max(0.0, span - NOISE_WEIGHT * noise) / FULL)
    return contrast * max(0.0, 1.0 - BURNT_WEIGHT * burnt)


def _read(view: FaceView) -> Mapping[str, float] | None:
    import cv2  # imported here so that reading a configuration does not load OpenCV

    luma = view.core
    if min(luma.shape) < 8:
        return None
    return {"exposure": exposure_of(luma, view.small, view.noise), "mean_luma": cv2.mean(luma)[0]}


def _side(evidence: Evidence) -> str:
    return "dark" if evidence.values.get("mean_luma", 0.0) < MIDDLE else "bright"


MEASURE = MeasureSpec(
    name="exposure",
    label="Exposure",
    hint="contrast, minus a penalty for noise and blown-out pixels",
    purpose="Is there enough light on the face, and not too much? Measured as the face's contrast, minus a penalty for "
    "noise and for blown-out pixels.",
    read=_read,
    evidence=("exposure", "mean_luma"),
    unit="share",
    mapping=Sigmoid(0.47, 0.14),
    limits=(Limit("min", 55.0, {"dark": "dark", "bright": "too bright"}, choose=_side),),
    version=2,
    weight=0.45,
    order=90,
)
