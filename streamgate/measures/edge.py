"""edge: is the kept square completely inside the frame?"""

from __future__ import annotations

import numpy as np

from streamgate.frames import Array
from streamgate.measures.face_view import FaceView
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid


def share_inside(corners: Array, shown: Array) -> float:
    """Share, 0..1, of a square that is inside `shown` [x1, y1, x2, y2].

    `corners` (4, 2) are the corners of the square, in order around it.
    """
    import cv2  # imported here so that reading a configuration does not load OpenCV

    x1, y1, x2, y2 = (float(value) for value in shown)
    if not (x2 > x1 and y2 > y1):
        return 0.0
    square = np.asarray(corners, np.float32)
    area = float(cv2.contourArea(square))
    if area <= 0.0:
        return 0.0
    box = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
    common, _ = cv2.intersectConvexConvex(square, box)
    return min(1.0, max(0.0, common / area))


def _read(view: FaceView) -> float | None:
    return None if view.square is None else share_inside(view.square, view.shown)


MEASURE = MeasureSpec(
    name="edge",
    label="In frame",
    hint="share of the kept square inside the picture",
    purpose="Is the kept picture completely inside the frame? Measured as the share of the FFHQ square that is inside; "
    "black bars count as outside.",
    read=_read,
    evidence=("inside",),
    unit="share",
    mapping=Sigmoid(0.955, 0.012),
    limits=(Limit("min", 0.96, {"edge": "cut off"}, of="raw", bounds=(0.0, 1.0)),),
    of_source=True,
    version=2,
    weight=0.7,
    order=70,
)
