"""sharpness: detail that blur takes away and grain does not give."""

from __future__ import annotations

import numpy as np

from streamgate.frames import Array
from streamgate.measures.faceview import FaceView, at_one_size, scale_of
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

SIGMA = 1.0
"""Of the Gaussian before the Laplacian, in pixels of `at_one_size`: it leaves edges of lids, irises, lips, and little
of grain."""
_NOISE_GAIN = 0.111
"""Variance that white noise of variance 1 keeps through both."""
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""Blind to edges, gain 6 for white noise (Immerkaer, 1996)."""
_MAD = 0.6745
"""Median of the size of normal noise of deviation 1."""


def noise_of(pixels: Array) -> float:
    """Deviation of the noise of luma float32 (h, w): edges do not count."""
    import cv2  # with the first face, not with every configuration

    return float(np.median(np.abs(cv2.filter2D(pixels, cv2.CV_32F, _NOISE)))) / (6 * _MAD)


def sharpness_of(luma: Array, inter_eye: float) -> float | None:
    """Variance of the Laplacian of a Gaussian over variance, both less what the noise has of them, of luma uint8 (h, w)
    scaled down to 60 px between the eyes.

    Never scaled up. None where there is nothing to measure (a region of fewer than 8 pixels a side).
    """
    import cv2  # with the first face, not with every configuration

    if min(luma.shape, default=0) < 8:
        return None
    pixels = at_one_size(luma, inter_eye).astype(np.float32)
    grain = noise_of(pixels)
    variance = float(cv2.meanStdDev(pixels)[1][0, 0]) ** 2 - grain**2
    if variance < 1.0:
        return 0.0
    edges = cv2.Laplacian(cv2.GaussianBlur(pixels, (0, 0), SIGMA), cv2.CV_32F)
    detail = float(cv2.meanStdDev(edges)[1][0, 0]) ** 2 - _NOISE_GAIN * grain**2
    return max(0.0, detail) / variance


def _read(view: FaceView) -> float | None:
    return sharpness_of(view.core, scale_of(view.face))


MEASURE = MeasureSpec(
    name="sharpness",
    label="Sharpness",
    hint="fine detail against contrast",
    purpose="Is the face in focus and free of motion blur? Fine edges against the contrast of its luma, without grain.",
    read=_read,
    mapping=Sigmoid(0.0105, 0.0035),
    limits=(Limit("min", 13.0, {"blurred": "blurred"}),),
    version=2,
    weight=0.35,
    order=80,
)
