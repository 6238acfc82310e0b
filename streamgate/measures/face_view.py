"""A face in a picture, as seen by the measures that read pixels."""

from __future__ import annotations

import math

import numpy as np

from streamgate.faces import Face
from streamgate.frames import Array, Picture
from streamgate.parallel import lazy_property

INTER_EYE = 60.0
"""Distance between the eyes in `FaceView.small`, in pixels."""
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""A filter that responds to noise but not to edges; its gain for white noise is 6 (Immerkaer, 1996)."""
_MAD = 0.6745
"""Median of the absolute value of normally distributed noise with a standard deviation of 1."""


class FaceView:
    """One face in one picture. Values that several measures need are computed once.

    Attributes:
        picture: the picture that contains the face; `luma(box)` and `warp(matrix, size)` take source coordinates.
        face: box and landmarks of the face.
        shown: the part of the source frame inside black bars, [x1, y1, x2, y2].
        square: corners (4, 2) of the square that would be kept; None if the face's landmarks define no square.
    """

    def __init__(
        self, picture: Picture, face: Face, shown: Array | None = None, square: Array | None = None
    ) -> None:
        """`shown` defaults to the whole frame."""
        self.picture = picture
        self.face = face
        self.square = square
        self.shown = np.array([0.0, 0.0, picture.width, picture.height]) if shown is None else shown

    @lazy_property
    def core(self) -> Array:
        """Luma of `face_core`, uint8 (h, w); h or w is below 8 if almost nothing of the face is in the picture."""
        return self.picture.luma(face_core(self.face))

    @lazy_property
    def small(self) -> Array:
        """`core` scaled down to 60 px between the eyes, so that faces of any size can be compared; never scaled up."""
        return at_one_size(self.core, scale_of(self.face))

    @lazy_property
    def noise(self) -> float:
        """Standard deviation of the noise of `small`."""
        return noise_of(self.small)


def face_core(face: Face) -> Array:
    """The square that contains eyes, nose and mouth and little else, [x1, y1, x2, y2] in source pixels.

    Half of its side is 1.15 times the larger of two lengths: the eye distance, and 0.9 times the distance from the eyes
    to the mouth. Therefore, the square does not shrink when the head turns.
    """
    eyes = face.eye_centre
    mouth = face.mouth_centre
    half = 1.15 * scale_of(face)
    centre = (eyes + mouth) / 2
    return np.concatenate([centre - half, centre + half])


def at_one_size(luma: Array, inter_eye: float) -> Array:
    """Luma uint8 (h, w) scaled down to 60 px between the eyes, so that faces of any size can be compared.

    Smaller faces are not scaled up.
    """
    import cv2  # imported here so that reading a configuration does not load OpenCV

    scale = INTER_EYE / max(inter_eye, 1.0)
    if scale >= 1.0:
        return luma
    size = (max(8, round(luma.shape[1] * scale)), max(8, round(luma.shape[0] * scale)))
    return cv2.resize(luma, size, interpolation=cv2.INTER_AREA)


def noise_of(luma: Array) -> float:
    """Standard deviation of the noise of luma uint8 (h, w); edges do not affect it."""
    import cv2  # imported here so that reading a configuration does not load OpenCV

    response = cv2.filter2D(luma, cv2.CV_16S, _NOISE)
    (median,) = quantiles(cv2.convertScaleAbs(response), 0.5)
    if median > 254:  # `convertScaleAbs` limits values to 255
        median = float(np.median(np.abs(response)))
    return median / (6 * _MAD)


def quantiles(levels: Array, *shares: float) -> list[float]:
    """The quantiles of uint8 levels that `np.quantile` would return. Counting the levels is several times faster than
    sorting them."""
    import cv2  # imported here so that reading a configuration does not load OpenCV

    up_to = cv2.calcHist([levels], [0], None, [256], [0, 256]).cumsum(dtype=np.int64)
    found = []
    for share in shares:
        position = share * (levels.size - 1)
        low, high = np.searchsorted(up_to, (math.floor(position), math.ceil(position)), side="right").tolist()
        found.append(low + (high - low) * (position - math.floor(position)))
    return found


def scale_of(face: Face) -> float:
    """An estimate of the eye distance that the face would have in frontal view, in source pixels, at least 1.

    When the head turns, the distance between the eyes shrinks, but the distance from eyes to mouth does not; on a
    frontal face, the two distances are about equal. Used for scaling only; the measure `size` is the plain eye
    distance.
    """
    eyes = face.eye_centre
    mouth = face.mouth_centre
    return max(face.inter_eye, 0.9 * float(np.hypot(*(mouth - eyes))), 1.0)
