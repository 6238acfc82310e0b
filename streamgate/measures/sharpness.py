"""sharpness: fine structure that blur takes away."""

from __future__ import annotations

from streamgate.frames import Array
from streamgate.measures.faceview import FaceView, scale_of
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

INTER_EYE = 60.0
"""Pixels between the eyes at which sharpness is taken, so that faces of different size compare."""


def sharpness_of(luma: Array, inter_eye: float) -> float | None:
    """Variance of the Laplacian over variance, of luma uint8 (h, w) scaled down to 60 px between the eyes.

    Never scaled up. None where there is nothing to measure (a region of fewer than 8 pixels a side).
    """
    import cv2  # with the first face, not with every configuration

    if min(luma.shape, default=0) < 8:
        return None
    scale = INTER_EYE / max(inter_eye, 1.0)
    if scale < 1.0:
        size = (max(8, round(luma.shape[1] * scale)), max(8, round(luma.shape[0] * scale)))
        luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    variance = float(cv2.meanStdDev(luma)[1][0, 0]) ** 2
    if variance < 1.0:
        return 0.0
    # Of bytes the Laplacian fits in 16 bits exactly.
    return float(cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))[1][0, 0]) ** 2 / variance


def _read(view: FaceView) -> float | None:
    return sharpness_of(view.core, scale_of(view.face))


MEASURE = MeasureSpec(
    name="sharpness",
    label="Sharpness",
    hint="fine detail against contrast",
    purpose="Is the face in focus and free of motion blur? Variance of the Laplacian over the variance of its luma.",
    read=_read,
    mapping=Sigmoid(0.06, 0.027),
    limits=(Limit("min", 13.0, {"blurred": "blurred"}),),
    weight=0.5,
    order=80,
)
