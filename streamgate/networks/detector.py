"""Face detection: one interface for detectors with any of the supported output layouts."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from streamgate.faces import Face
from streamgate.frames import Array
from streamgate.networks.layouts import LAYOUTS, Outputs, Shape
from streamgate.networks.priors import suppress
from streamgate.networks.sessions import Session

STRIDE = 32
"""The coarsest stride. Pictures are padded at the right and bottom to sides that are multiples of this number."""

NMS_OVERLAP = 0.4
MAX_CANDIDATES = 2000
"""Maximum number of locations that are decoded, best scores first. A crowd of 300 faces needs about this many."""

_PAD = (123, 117, 104)
"""The mean colour that the networks subtract, so that padding becomes zero, as in the padding of their convolutions."""


class Detector:
    """Detects faces; results do not depend on other pictures in the batch. Thread-safe."""

    def __init__(self, session: Session, nms_iou: float = NMS_OVERLAP) -> None:
        self._layout = LAYOUTS[session.weights.output.get("layout", "retinaface")]
        session.need_outputs(*self._layout.outputs)
        self._session = session
        self._nms_iou = nms_iou

    def detect(self, pictures: Sequence[Array], threshold: float = 0.5) -> list[list[Face]]:
        """Faces of each picture, best score first, in pixels of that picture.

        Pictures are RGB uint8 (h, w, 3) of any size and are not scaled. The networks in the package find faces of about
        16 to 400 pixels, so pass a thumbnail in which the smallest face of interest is 16 pixels wide. Boxes may extend
        beyond the picture.
        On a GPU, pictures of the same padded size share a run.
        """
        shapes = [_padded_shape(picture) for picture in pictures]
        found: list[list[Face]] = [[] for _ in pictures]
        for shape in dict.fromkeys(shapes):
            indices = [index for index, other in enumerate(shapes) if other == shape]
            batch = np.stack([_pad(pictures[index], shape) for index in indices])
            outputs = self._session.run_pictures(batch)
            for row, index in enumerate(indices):
                found[index] = self._faces({name: values[row] for name, values in outputs.items()}, shape, threshold)
        return found

    def _faces(self, outputs: Outputs, shape: Shape, threshold: float) -> list[Face]:
        """Decode the outputs for one picture; `shape` is the shape of the padded picture."""
        scores = self._layout.scores(outputs)
        above = np.flatnonzero(scores >= threshold)
        if len(above) > MAX_CANDIDATES:
            above = above[np.argsort(-scores[above], kind="stable")[:MAX_CANDIDATES]]
        boxes, points = self._layout.decode(outputs, shape, above)
        # Box sides are exponentials and can overflow on unusual input.
        sane = np.isfinite(boxes).all(axis=1) & np.isfinite(points).all(axis=(1, 2))
        above, boxes, points = above[sane], boxes[sane], points[sane]
        kept = suppress(boxes, scores[above], self._nms_iou)
        return [Face(boxes[i], points[i], float(scores[above[i]])) for i in kept]


def _padded_shape(picture: Array) -> Shape:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"expected RGB uint8 (h, w, 3), got {picture.dtype} {picture.shape}")
    height, width = picture.shape[:2]
    return -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE


def _pad(picture: Array, shape: Shape) -> Array:
    bottom, right = shape[0] - picture.shape[0], shape[1] - picture.shape[1]
    if bottom == 0 and right == 0:
        return picture
    return np.asarray(cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=_PAD))
