"""sharpness: is the face in focus and free of motion blur?"""

from __future__ import annotations

import numpy as np

from streamgate.faces import Evidence
from streamgate.frames import Array
from streamgate.measures.face_view import FaceView
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

SIGMA = 1.0
"""Standard deviation of the Gaussian before the Laplacian, in pixels of `FaceView.small`. This Gaussian preserves the
edges of lids, irises and lips and removes most of the grain."""
_NOISE_GAIN = 0.111
"""Variance that white noise with a variance of 1 has after the Gaussian and the Laplacian."""


def sharpness_of(luma: Array, grain: float) -> float:
    """Variance of the Laplacian of Gaussian divided by the variance of the luma; the noise is subtracted from both.

    Args:
        luma: uint8 (h, w) with 60 px between the eyes (less if the face is smaller).
        grain: standard deviation of the noise of `luma`.
    """
    import cv2  # imported here so that reading a configuration does not load OpenCV

    pixels = luma.astype(np.float32)
    variance = float(cv2.meanStdDev(pixels)[1][0, 0]) ** 2 - grain**2
    if variance < 1.0:
        return 0.0
    edges = cv2.Laplacian(cv2.GaussianBlur(pixels, (0, 0), SIGMA), cv2.CV_32F)
    detail = float(cv2.meanStdDev(edges)[1][0, 0]) ** 2 - _NOISE_GAIN * grain**2
    return max(0.0, detail) / variance


def _read(view: FaceView) -> float | None:
    return None if min(view.core.shape) < 8 else sharpness_of(view.small, view.noise)


_NOTHING_REAL = 0.02
"""IFQA score below which no part of a face looks like a clean photograph. In the clips that were measured, clean soft
portraits have at least 0.033, and enlarged or unfocused faces with the same sharpness at most 0.012 (IFQA of the set
`open`: 0.09 and 0.016).
"""


def _at(limit: float, evidence: Evidence, width: int, height: int) -> float:
    """The limit, doubled if no part of the face looks clean to IFQA.

    A soft face without any clean part has no detail at all, because it was enlarged or is far out of focus. A clean
    soft portrait and a sharp portrait with grain both pass.
    """
    score = evidence.values.get("ifqa")
    return limit * (2 if score is not None and score < _NOTHING_REAL else 1)


MEASURE = MeasureSpec(
    name="sharpness",
    label="Sharpness",
    hint="fine detail relative to contrast",
    purpose="Is the face in focus and free of motion blur? Measured as the strength of fine edges relative to the "
    "contrast; grain does not count.",
    read=_read,
    mapping=Sigmoid(0.0105, 0.0035),
    limits=(Limit("min", 13.0, {"blurred": "blurred"}, at=_at),),
    version=2,
    weight=0.35,
    order=80,
)
