"""How pixel formats arrange samples in planes, and zero-copy views of a decoder's planes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from av import VideoFrame

from streamgate.frames import Array


@dataclass(frozen=True, slots=True)
class Layout:
    """One pixel format that needs no conversion.

    Attributes:
        kind: arrangement of the samples: planar (Y, U, V; a further alpha plane is ignored), semi (Y, UV interleaved),
            packed (RGB or BGR, possibly with a fourth channel) or gray.
        sub_x, sub_y: base-2 logarithm of the horizontal and the vertical chroma subsampling.
        depth: significant bits per sample; samples of more than 8 bits are little-endian uint16.
        shift: zero bits below the significant ones.
        channels: number of channels of a packed format.
        blue_first: whether samples are ordered B, G, R (in a packed format) or V, U (in a semi-planar one).
        full_range: whether the format itself implies full range (the old yuvj family, gray, RGB).
    """

    kind: Literal["planar", "semi", "packed", "gray"]
    sub_x: int = 0
    sub_y: int = 0
    depth: int = 8
    shift: int = 0
    channels: int = 1
    blue_first: bool = False
    full_range: bool = False

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        return np.dtype(np.uint8) if self.depth == 8 else np.dtype("<u2")


@lru_cache(maxsize=1)
def layouts() -> dict[str, Layout]:
    """The formats that are read without conversion, by FFmpeg's name; all others are converted first."""
    table: dict[str, Layout] = {}
    subsampling = {"444": (0, 0), "422": (1, 0), "420": (1, 1), "440": (0, 1), "411": (2, 0), "410": (2, 2)}
    for name, (x, y) in subsampling.items():
        table[f"yuv{name}p"] = Layout("planar", x, y)
        table[f"yuvj{name}p"] = Layout("planar", x, y, full_range=True)
        table[f"yuva{name}p"] = Layout("planar", x, y)
        for depth in (9, 10, 12, 14, 16):
            table[f"yuv{name}p{depth}le"] = Layout("planar", x, y, depth)
            table[f"yuva{name}p{depth}le"] = Layout("planar", x, y, depth)
    # FFmpeg writes and displays gray in full range, whatever the range tag says.
    table["gray"] = Layout("gray", full_range=True)
    for depth in (9, 10, 12, 14, 16):
        table[f"gray{depth}le"] = Layout("gray", depth=depth, full_range=True)
    for name, x, y, blue_first in (
        ("nv12", 1, 1, False), ("nv21", 1, 1, True), ("nv16", 1, 0, False), ("nv24", 0, 0, False),
    ):  # fmt: skip
        table[name] = Layout("semi", x, y, blue_first=blue_first)
    for name, x, y, depth, shift in (
        ("p010le", 1, 1, 10, 6), ("p012le", 1, 1, 12, 4), ("p016le", 1, 1, 16, 0),
        ("p210le", 1, 0, 10, 6), ("p410le", 0, 0, 10, 6),
    ):  # fmt: skip
        table[name] = Layout("semi", x, y, depth, shift)
    for name, channels in (("rgb24", 3), ("bgr24", 3), ("rgba", 4), ("bgra", 4), ("rgb0", 4), ("bgr0", 4)):
        table[name] = Layout(
            "packed", channels=channels, blue_first=name.startswith("b"), full_range=True
        )  # fmt: skip
    return table


def plain_format(name: str, is_rgb: bool, depth: int) -> str:
    """The format of `layouts()` to which an unsupported format can be converted with the least loss."""
    if is_rgb or name.startswith(("pal8", "bayer", "xyz", "gbr")):
        return "rgb24"
    if name.startswith(("mono", "ya8")):
        return "gray"
    # Packed 4:2:2 (yuyv422, uyvy422, y210) and big-endian planes are converted to 4:4:4 without loss.
    return "yuv444p" if depth <= 8 else "yuv444p16le" if depth > 10 else "yuv444p10le"


def planes_of(frame: VideoFrame, layout: Layout) -> tuple[Array, ...]:
    """Views of the planes of `frame`: (h, w) or (h, w, c); there may be gaps between rows.

    The views keep the decoder's buffers alive and stay valid as long as they exist.
    """
    width, height = frame.width, frame.height
    planes = frame.planes
    if layout.kind == "packed":
        return (_view(planes[0], width, height, layout.channels, layout.dtype),)
    luma = _view(planes[0], width, height, 1, layout.dtype)
    if layout.kind == "gray":
        return (luma,)
    # If the luma size is odd, the chroma size is rounded up.
    chroma_width, chroma_height = -(-width >> layout.sub_x), -(-height >> layout.sub_y)
    if layout.kind == "semi":
        return (luma, _view(planes[1], chroma_width, chroma_height, 2, layout.dtype))
    return (luma, *(_view(plane, chroma_width, chroma_height, 1, layout.dtype) for plane in planes[1:3]))


def eight_bits(plane: Array, layout: Layout) -> Array:
    """The upper eight bits of a plane's samples, uint8; the plane itself if its samples have only eight bits."""
    shift = layout.shift + layout.depth - 8
    return np.asarray(plane >> shift, np.uint8) if shift else plane


def _view(plane: object, width: int, height: int, channels: int, dtype: np.dtype) -> Array:
    stride = plane.line_size  # type: ignore[attr-defined]
    rows = np.frombuffer(plane, dtype, count=height * stride // dtype.itemsize)  # type: ignore[call-overload]
    rows = rows.reshape(height, stride // dtype.itemsize)[:, : width * channels]
    if channels == 1:
        return rows
    return np.lib.stride_tricks.as_strided(
        rows, (height, width, channels), (stride, channels * dtype.itemsize, dtype.itemsize)
    )
