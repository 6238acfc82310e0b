"""Display metadata of decoded frames: rotation, mirroring, and stereo pairs in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av import VideoFrame
from av.filter import Graph
from av.sidedata.sidedata import Type

from streamgate.frames import Array
from streamgate.sources.orientation import UNTURNED, Turn, turn_of

_SIDE_BY_SIDE, _TOP_AND_BOTTOM = 1, 2
"""Values of FFmpeg's AVStereo3DType. In other arrangements, an eye's view is not a rectangular part of the picture."""
_KINDS = 64
"""Upper bound of FFmpeg's numbers for types of side data."""
_WIDE, _HIGH = 2.4, 1.2
"""Aspect ratios (width over height). A side-by-side stereo picture whose ratio is at least the first value, or a
top-and-bottom one whose ratio is below the second value, is assumed to hold both views at full size, because no screen
has such a shape. In any other stereo picture, each view is assumed to be squeezed into one half of the picture."""


@dataclass(frozen=True, slots=True)
class Eye:
    """The half of a stereo pair that is analysed: the left or the upper half.

    Attributes:
        across: whether the pair is side by side.
        squeezed: whether the half is meant to be displayed at the size of the whole picture.
    """

    across: bool
    squeezed: bool

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Stored width and height of the eye in a pair of `width` x `height` pixels."""
        return (width // 2, height) if self.across else (width, height // 2)

    def aspect(self, aspect: Fraction | None) -> Fraction | None:
        """Sample aspect ratio of the eye; `aspect` is the sample aspect ratio of the pair."""
        if not self.squeezed:
            return aspect
        return (aspect or Fraction(1)) * (Fraction(2) if self.across else Fraction(1, 2))

    def planes(self, planes: Sequence[Array]) -> tuple[Array, ...]:
        """The eye's part of each plane of a pair, as views. Planes are (h, w) or (h, w, c), luma first."""
        axis = 1 if self.across else 0
        whole = planes[0].shape[axis]
        # Chroma sizes are rounded up, as for a picture of the eye's size.
        parts = [slice(-(-plane.shape[axis] * (whole // 2) // whole)) for plane in planes]
        return tuple(plane[:, part] if self.across else plane[part] for plane, part in zip(planes, parts, strict=True))


def shown_turn(frame: VideoFrame) -> Turn:
    """How to turn and mirror the stored picture for display, including the EXIF orientation of MJPEG pictures."""
    matrix = side_data(frame, "DISPLAYMATRIX")
    return UNTURNED if matrix is None else turn_of(matrix)


def used_eye(frame: VideoFrame, aspect: Fraction | None) -> Eye | None:
    """The half of the frame that shows one eye; None if the frame is not a stereo pair.

    `aspect` is the sample aspect ratio, if it is known.
    """
    stereo = side_data(frame, "STEREO3D")
    if stereo is None or len(stereo) < 4:
        return None
    kind = int(np.frombuffer(stereo, np.int32, 1)[0])
    if kind not in (_SIDE_BY_SIDE, _TOP_AND_BOTTOM) or min(frame.width, frame.height) < 2:
        return None
    across = kind == _SIDE_BY_SIDE
    if aspect not in (None, 1) or side_data(frame, "SPHERICAL") is not None:
        # The eyes of a panorama are not squeezed. An explicit pixel aspect ratio already accounts for any squeezing.
        return Eye(across, False)
    shape = frame.width / frame.height
    return Eye(across, shape < _WIDE if across else shape >= _HIGH)


def side_data(frame: VideoFrame, kind: str) -> bytes | None:
    """The frame's side data of the type `kind` (PyAV's name); None if the frame has none.

    Reading side data puts the frame into a reference cycle, so its pixels are not freed until a garbage collection.
    """
    found: Any
    try:
        found = frame.side_data.get(kind)
    except ValueError:
        # PyAV looks up the names of all side data of the frame, and fails if there is a type that it does not know.
        found = _nameable(frame).side_data.get(kind)
    return None if found is None else bytes(found)


def _nameable(frame: VideoFrame) -> VideoFrame:
    """The same picture, without the side data whose types PyAV does not know."""
    graph = Graph()
    last = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    source, known = last, {kind.value for kind in Type}
    for number in range(_KINDS):
        if number not in known:
            deleting = graph.add("sidedata", f"mode=delete:type={number}")
            last.link_to(deleting)
            last = deleting
    last.link_to(graph.add("buffersink"))
    graph.configure()
    source.push(frame)
    return graph.vpull()
