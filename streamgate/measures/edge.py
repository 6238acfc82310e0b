"""edge: is the whole face inside the picture?"""

from __future__ import annotations

from streamgate.frames import Array
from streamgate.measures.faceview import FaceView
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid


def share_inside(box: Array, width: int, height: int) -> float:
    """Share of the box's area that lies inside a picture of `width` x `height`, 0..1."""
    area = max(0.0, float(box[2] - box[0])) * max(0.0, float(box[3] - box[1]))
    if area == 0.0:
        return 0.0
    across = min(float(box[2]), width) - max(float(box[0]), 0.0)
    down = min(float(box[3]), height) - max(float(box[1]), 0.0)
    return max(0.0, across) * max(0.0, down) / area


def _read(view: FaceView) -> float:
    return share_inside(view.face.box, view.picture.width, view.picture.height)


MEASURE = MeasureSpec(
    name="edge",
    label="In frame",
    hint="share of the face inside the picture",
    purpose="Is the whole face inside the picture? Share of its box.",
    read=_read,
    evidence=("inside",),
    unit="share",
    mapping=Sigmoid(0.9, 0.025),
    limits=(Limit("min", 0.97, {"edge": "cut off"}, of="raw", bounds=(0.0, 1.0)),),
    weight=0.5,
    of_source=True,
    order=70,
)
