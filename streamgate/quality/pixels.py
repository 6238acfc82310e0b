"""Evidence that needs no network: geometry of the box and statistics of the face's luma."""

from __future__ import annotations

import cv2
import numpy as np

from streamgate.frames import Array, Evidence, Face, Picture

SHARPNESS_INTER_EYE = 60.0
"""Pixels between the eyes at which sharpness is taken, so that faces of different size compare."""


def face_core(face: Face) -> Array:
    """The square that holds eyes, nose and mouth and little else, [x1, y1, x2, y2] in source pixels.

    Its half side is 1.15 times the larger of the eye distance and 0.9 times eye-to-mouth distance, so a
    turned head does not let the background in.
    """
    eyes = face.landmarks[:2].mean(axis=0)
    mouth = face.landmarks[3:].mean(axis=0)
    half = 1.15 * max(face.inter_eye, 0.9 * float(np.hypot(*(mouth - eyes))), 1.0)
    centre = (eyes + mouth) / 2
    return np.concatenate([centre - half, centre + half])


def scale_of(face: Face) -> float:
    """Eye distance as if the head looked straight at the camera, in source pixels.

    The eyes come together on a turned head; their distance to the mouth does not, and on a frontal face the
    two are about equal. Used for scaling only; the `size` measure is the plain eye distance.
    """
    eyes = face.landmarks[:2].mean(axis=0)
    mouth = face.landmarks[3:].mean(axis=0)
    return max(face.inter_eye, 0.9 * float(np.hypot(*(mouth - eyes))), 1.0)


def share_inside(box: Array, width: int, height: int) -> float:
    """Share of the box's area that lies inside a picture of `width` x `height`, 0..1."""
    area = max(0.0, float(box[2] - box[0])) * max(0.0, float(box[3] - box[1]))
    if area == 0.0:
        return 0.0
    across = min(float(box[2]), width) - max(float(box[0]), 0.0)
    down = min(float(box[3]), height) - max(float(box[1]), 0.0)
    return max(0.0, across) * max(0.0, down) / area


def sharpness_of(luma: Array, inter_eye: float) -> float | None:
    """Variance of the Laplacian over variance, of luma uint8 (h, w) scaled down to 60 px between the eyes.

    Never scaled up. None where there is nothing to measure (a region of fewer than 8 pixels a side).
    """
    if min(luma.shape, default=0) < 8:
        return None
    scale = SHARPNESS_INTER_EYE / max(inter_eye, 1.0)
    if scale < 1.0:
        size = (max(8, round(luma.shape[1] * scale)), max(8, round(luma.shape[0] * scale)))
        luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    variance = _deviation(luma) ** 2
    if variance < 1.0:
        return 0.0
    # Of bytes the Laplacian fits in 16 bits exactly.
    return _deviation(cv2.Laplacian(luma, cv2.CV_16S)) ** 2 / variance


def _deviation(values: Array) -> float:
    return float(cv2.meanStdDev(values)[1][0, 0])


def look_at(picture: Picture, face: Face, evidence: Evidence) -> None:
    """Fill in size, edge, sharpness and exposure evidence of `face` in `picture`."""
    evidence.inter_eye = face.inter_eye
    evidence.inside = share_inside(face.box, picture.width, picture.height)
    luma = picture.luma(face_core(face))
    if min(luma.shape, default=0) < 8:
        evidence.failed.update(("sharpness", "exposure"))
        return
    evidence.sharpness = sharpness_of(luma, scale_of(face))
    evidence.mean_luma = float(cv2.mean(luma)[0])
    evidence.exposure = cv2.countNonZero(cv2.inRange(luma, 40, 220)) / luma.size
