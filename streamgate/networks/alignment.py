"""Transforms from source pictures to crops: ArcFace, FFHQ, expression and box crops (docs/design.md 5).

Every matrix is float64 (2, 3) and maps source pixels to result pixels, with pixel centres at integers, as expected by
`Picture.warp` and `cv2.warpAffine`. Landmarks are (5, 2) in the order of docs/design.md 5.
"""

from __future__ import annotations

import numpy as np

from streamgate.frames import Array

ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Positions of the five landmarks in ArcFace's 112 x 112 crop."""
ARCFACE_TEMPLATE.flags.writeable = False

ARCFACE_SIDE = 112

EXPRESSION_SIZE = (144, 128)
"""Height and width of the expression network's input."""
EXPRESSION_EYE_DISTANCE = 52
"""Pixels between the eyes of a frontal head in the expression network's input."""
EXPRESSION_EYE_ROW = 35.5
"""Row of the eyes in the expression network's input; it leaves room for the brows above and an open mouth below."""
_NOSE_DEPTH = 1.7
"""Weight of the nose's shift along the eye line when the eye distance of a turned head is corrected."""


def umeyama(source: Array, target: Array) -> Array:
    """The similarity transform (rotation, uniform scale, shift; no mirroring) that best maps `source` to `target`.

    It is the least-squares solution for points (K, 2), K >= 2 (Umeyama 1991). In the plane, it has a closed form: if
    the points are written as complex numbers relative to their means, rotation and scale are
    sum(conj(s) t) / sum(|s|^2).

    Raises:
        ValueError: all source points are identical.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    (sx, sy), (tx, ty) = (source - source_mean).T, (target - target_mean).T
    power = float(np.sum(sx * sx + sy * sy))
    if not power > 0.0:
        raise ValueError("the landmarks coincide; no similarity is defined")
    cosine = float(np.sum(sx * tx + sy * ty)) / power
    sine = float(np.sum(sx * ty - sy * tx)) / power
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def arcface_matrix(landmarks: Array, size: int = ARCFACE_SIDE) -> Array:
    """The matrix that aligns a face with these landmarks to the ArcFace crop of `size` x `size` pixels."""
    scale = size / ARCFACE_SIDE
    # Coordinates refer to pixel centres: scaling moves the centre of the first pixel from 0 to scale/2 - 1/2.
    return umeyama(landmarks, (ARCFACE_TEMPLATE + 0.5) * scale - 0.5)


def arcface_enlargement(landmarks: Array) -> float:
    """How many times larger the face is in the ArcFace crop than in the source, at least 1.0."""
    return max(1.0, float(np.hypot(*arcface_matrix(landmarks)[0, :2])))


def ffhq_side(landmarks: Array) -> float:
    """Side of the FFHQ square in source pixels; a crop larger than this is upscaled."""
    _, x = _ffhq_axes(landmarks)
    return 2.0 * float(np.hypot(*x))


def ffhq_corners(landmarks: Array) -> Array:
    """Corners of the FFHQ square in source pixels, (4, 2): top left, top right, bottom right, bottom left."""
    centre, x = _ffhq_axes(landmarks)
    y = _rot90(x)
    return np.array([centre - x - y, centre + x - y, centre + x + y, centre - x + y])


def ffhq_matrix(landmarks: Array, size: int) -> Array:
    """The matrix from the FFHQ square to a crop of `size` x `size` pixels."""
    centre, x = _ffhq_axes(landmarks)
    gain = size / (2.0 * float(x @ x))
    linear = gain * np.array([x, _rot90(x)])
    # The square's corners are the outer corners of the crop's corner pixels, hence the half pixel.
    return np.column_stack([linear, np.full(2, size / 2.0 - 0.5) - linear @ centre])


def expression_matrix(landmarks: Array) -> Array:
    """The matrix that aligns a face with these landmarks to the expression network's crop.

    Position and rotation depend only on the eyes.

    The scale is based on an estimate of the eye distance of the same head in frontal view: sqrt(e^2 + (1.7 n)^2), where
    e is the eye distance in the picture, and n is the distance, along the eye line, of the nose from the midpoint of
    the eyes.

    Raises:
        ValueError: the eyes coincide.
    """
    points = np.asarray(landmarks, np.float64)
    across = points[1] - points[0]
    distance = float(np.hypot(*across))
    if not distance > 0.0:
        raise ValueError("the eyes coincide; no eye line is defined")
    middle = (points[0] + points[1]) / 2
    axis = across / distance
    gain = EXPRESSION_EYE_DISTANCE / float(np.hypot(distance, _NOSE_DEPTH * float((points[2] - middle) @ axis)))
    linear = gain * np.array([axis, [-axis[1], axis[0]]])
    target = np.array([(EXPRESSION_SIZE[1] - 1) / 2.0, EXPRESSION_EYE_ROW])
    return np.column_stack([linear, target - linear @ middle])


def box_matrix(box: Array, size: int) -> Array:
    """The matrix that stretches a box [x1, y1, x2, y2] to `size` x `size` pixels (the aspect ratio is not kept)."""
    x1, y1, x2, y2 = (float(value) for value in box)
    if not (x2 > x1 and y2 > y1):
        raise ValueError(f"box {[x1, y1, x2, y2]} is empty")
    horizontal, vertical = size / (x2 - x1), size / (y2 - y1)
    return np.array([[horizontal, 0.0, -horizontal * x1 - 0.5], [0.0, vertical, -vertical * y1 - 0.5]])


def _ffhq_axes(landmarks: Array) -> tuple[Array, Array]:
    """Centre of the FFHQ square, and the vector from the centre to the middle of the right side (docs/design.md 5)."""
    points = np.asarray(landmarks, np.float64)
    eyes, mouth = (points[0] + points[1]) / 2, (points[3] + points[4]) / 2
    across, down = points[1] - points[0], mouth - eyes
    x = across - _rot90(down)
    length = float(np.hypot(*x))
    if not length > 0.0:
        raise ValueError("the landmarks coincide; no FFHQ square is defined")
    x = x / length * max(2.0 * float(np.hypot(*across)), 1.8 * float(np.hypot(*down)))
    return eyes + 0.1 * down, x


def _rot90(vector: Array) -> Array:
    return np.array([-vector[1], vector[0]])
