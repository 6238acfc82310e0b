"""FFHQ alignment from five landmarks (docs/design.md 5).

y points down; landmarks are [5, 2] float pixels: the viewer's left eye, right eye, nose, left and right mouth corner.
This module does not use the package, so that a recipe can be copied and run without it.
"""

from __future__ import annotations

import cv2
import numpy as np

# Positions of the parts of a frontal face in the FFHQ square, as shares of the square's side: docs/design.md 5 applied
# to the ArcFace template.
FFHQ_EYES = ((0.378, 0.472), (0.622, 0.472))
FFHQ_NOSE = (0.500, 0.610)
FFHQ_MOUTH = (0.500, 0.750)


def ffhq_square(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and half axes x and y (pixels) of the FFHQ square; the corners of the square are centre +- x +- y."""
    points = np.asarray(landmarks, np.float64)
    eye_centre, mouth_centre = points[:2].mean(axis=0), points[3:5].mean(axis=0)
    eyes, drop = points[1] - points[0], mouth_centre - eye_centre
    x = eyes - np.array([-drop[1], drop[0]])
    length = np.hypot(*x)
    if length == 0:
        raise ValueError("degenerate landmarks: the eyes and mouth coincide")
    x = x / length * max(2.0 * np.hypot(*eyes), 1.8 * np.hypot(*drop))
    return eye_centre + 0.1 * drop, x, np.array([-x[1], x[0]])


def ffhq_matrix(landmarks: np.ndarray, side: int) -> np.ndarray:
    """[2, 3] affine map from source pixels (centres at integers) to the aligned picture of `side` pixels."""
    centre, x, y = ffhq_square(landmarks)
    source = np.stack([centre - x - y, centre + x - y, centre - x + y]).astype(np.float32)
    edge = side - 0.5
    target = np.array([[-0.5, -0.5], [edge, -0.5], [-0.5, edge]], np.float32)
    return cv2.getAffineTransform(source, target)


def align_ffhq(picture: np.ndarray, landmarks: np.ndarray, side: int = 256) -> np.ndarray:
    """uint8 [side, side, 3] RGB, FFHQ-aligned; a larger source is smoothed first, to avoid aliasing."""
    matrix = ffhq_matrix(landmarks, side)
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.8:
        sigma = 0.5 * np.sqrt(1 / scale**2 - 1)
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    return cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
