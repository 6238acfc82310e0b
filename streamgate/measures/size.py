"""size: does the face have enough pixels?"""

from __future__ import annotations

from streamgate.faces import Evidence, Face
from streamgate.frames import Array
from streamgate.measures.face_view import FaceView
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid


def shorter_side(box: Array) -> float:
    """The shorter side of a face's box [x1, y1, x2, y2], in pixels, to which the minimum size applies."""
    return float(min(box[2] - box[0], box[3] - box[1]))


def smallest_px(limit: float, width: int, height: int) -> float:
    """The limit in pixels for an upright frame; a `limit` below 1 is a share of the frame's shorter side."""
    return limit * min(width, height) if limit < 1 else limit


def _at(limit: float, evidence: Evidence, width: int, height: int) -> float:
    return smallest_px(limit, width, height)


def _side(face: Face, evidence: Evidence) -> float:
    return shorter_side(face.box)


def _read(view: FaceView) -> float:
    return view.face.inter_eye


MEASURE = MeasureSpec(
    name="size",
    label="Size",
    hint="distance between the eyes in the picture",
    purpose="Does the face have enough pixels? Measured as the distance between the eyes. The limit is the minimum "
    "length of the shorter side of the face's box. A limit below 1 is a share of the frame's shorter side; any other "
    "limit is in pixels.",
    read=_read,
    evidence=("inter_eye",),
    unit="pixels",
    mapping=Sigmoid(70.0, 20.0),
    limits=(
        Limit("min", 0.1, {"small": "small"}, of=_side, at=_at, bounds=(0.0, 10000.0), positive=True),
    ),
    of_source=True,
    weight=0.3,
    order=60,
)
