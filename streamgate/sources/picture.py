"""The pixels of a frame, read from the decoder's planes without making a full RGB picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import cv2
import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter

from streamgate.frames import Array
from streamgate.parallel import lazy_property
from streamgate.sources.colour import HLG, PQ, Colour, full_range_luma, resolve_matrix, yuv_to_rgb
from streamgate.sources.combing import is_combed
from streamgate.sources.layout import Layout, eight_bits, layouts, plain_format, planes_of
from streamgate.sources.orientation import UNTURNED, Turn, Upright, turn_array, turned, upright
from streamgate.sources.pyav import colour_of
from streamgate.sources.resample import COARSE, EXACT, FINE, ResampleOptions, sample
from streamgate.sources.side_data import Eye, shown_turn, used_eye

_SWS_FLAGS = 4 | 0x40000 | 0x4000
"""libswscale's BICUBIC, ACCURATE_RND and FULL_CHR_H_INP; before version 18, PyAV has no names for the last two."""

_REGION_MARGIN = 8
"""Number of stored pixels copied around a region, so that interpolation inside the region has real neighbours."""

_CENTRE_SITED = frozenset(
    {"mpeg1video", "mjpeg", "mjpegb", "ljpeg", "h261", "h263", "h263i", "flv1", "theora", "webp"}
)
"""Codecs whose chroma samples are centred between luma samples; in all others, chroma is aligned with the left luma
samples."""


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """The pixel data of a picture: planes, and how to interpret them.

    `siting` is the position (x, y) of the first chroma sample, in luma pixels from the first luma sample. `left` and
    `top` are the position of the planes' first luma sample in the stored picture (0 for a whole picture).
    """

    planes: tuple[Array, ...]
    layout: Layout
    colour: Colour
    siting: tuple[float, float]
    upright: Upright
    left: int = 0
    top: int = 0


class PlanePicture:
    """A `frames.Picture` over stored planes.

    Args:
        load: returns the planes; called when they are first needed, because most frames of a video are never examined.
    """

    def __init__(self, load: Callable[[], StoredPicture]) -> None:
        self._load = load

    @lazy_property
    def _stored(self) -> StoredPicture:
        return self._load()

    @property
    def width(self) -> int:
        """Width of the whole upright source frame in pixels."""
        return self._stored.upright.width

    @property
    def height(self) -> int:
        """Height of the whole upright source frame in pixels."""
        return self._stored.upright.height

    @property
    def nbytes(self) -> int:
        """Size of the pixels in bytes (a region has its own copy; a whole frame shares the decoder's buffer)."""
        return sum(plane.nbytes for plane in self._stored.planes)

    def luma(self, box: Array | None = None) -> Array:
        """Luma of `box` (None: the whole picture) as an owned array, uint8 (h, w), 0..255, upright; may be empty.

        The box is rounded outward to whole pixels and clipped to the picture (for a region: to its pixels).
        """
        stored = self._stored
        left, top, right, bottom = self._clip(box)
        if right <= left or bottom <= top:
            return np.zeros((max(0, bottom - top), max(0, right - left)), np.uint8)
        if stored.layout.kind == "packed" or stored.colour.hdr:
            matrix = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]])
            rgb = self._rgb(matrix, (right - left, bottom - top), cv2.INTER_LINEAR)
            return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        if stored.upright.stretched:
            to_plane = _after_shift(self._to_plane(0, 0), left, top)
            size = (right - left, bottom - top)
            return full_range_luma(sample(stored.planes[0], to_plane, size, cv2.INTER_CUBIC), stored.colour)
        x1, y1, x2, y2 = np.rint(stored.upright.stored_box(np.array([left, top, right, bottom]))).astype(int)
        part = stored.planes[0][y1 - stored.top : y2 - stored.top, x1 - stored.left : x2 - stored.left]
        return np.ascontiguousarray(turn_array(full_range_luma(part, stored.colour), stored.upright.turn))

    def luma_samples(self, width: int, height: int) -> Array:
        """Luma of individual pixels on an even grid, uint8 (h, w), 0..255, upright; nothing is averaged.

        The grid is the coarsest one with integer steps that has at least `width` x `height` samples (all pixels if
        the picture has fewer).
        """
        stored = self._stored
        if stored.layout.kind == "packed" or stored.colour.hdr:
            return _on_grid(self.luma(), width, height)
        columns, rows = (height, width) if stored.upright.turn[0] == 0 else (width, height)
        samples = _on_grid(stored.planes[0], columns, rows)
        return np.ascontiguousarray(turn_array(full_range_luma(samples, stored.colour), stored.upright.turn))

    def combed(self, box: Array) -> bool:
        """Whether `box` interleaves two moments line by line, that is, was interlaced and not deinterlaced."""
        stored = self._stored
        if stored.layout.kind == "packed":
            return False
        edges = stored.upright.stored_box(np.asarray(box, np.float64)) - (stored.left, stored.top) * 2
        left, top, right, bottom = (max(0, round(edge)) for edge in edges.tolist())
        return is_combed(np.ascontiguousarray(eight_bits(stored.planes[0][top:bottom, left:right], stored.layout)))

    def thumbnail(self, long_side: int) -> Array:
        """The picture (for a region: its pixels) as RGB uint8, averaged down to `long_side` but never enlarged.

        If W x H pixels become w x h, thumbnail pixel x is at source pixel (x + 0.5) * W / w - 0.5, and likewise for y.
        """
        left, top, right, bottom = self._clip(None)
        width, height = right - left, bottom - top
        scale = min(1.0, long_side / max(width, height))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        ratio = np.array([size[0] / width, size[1] / height])
        shift = -ratio * (left, top) + 0.5 * ratio - 0.5
        matrix = np.column_stack([np.diag(ratio), shift])
        return self._rgb(matrix, size, cv2.INTER_LINEAR, COARSE)

    def warp(self, matrix: Array, size: int | tuple[int, int], *, fine: bool = False) -> Array:
        """Resample with `matrix` (2, 3), which maps upright source pixel centres to result pixel centres.

        `size` is the side of a square or (width, height). Returns RGB uint8 (h, w, 3). Luma is interpolated cubically
        and chroma linearly. Downscaling averages by area; if `fine`, it uses a Lanczos filter, which is meant for
        pictures that are kept. Outside the picture, its edge pixels are repeated.
        """
        wanted = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        return self._rgb(np.asarray(matrix, np.float64), wanted, cv2.INTER_CUBIC, FINE if fine else EXACT)

    def region(self, box: Array) -> PlanePicture:
        """A picture with its own copy of the pixels in `box` (clipped, plus a margin), in the same coordinates."""
        stored = self._stored
        x1, y1, x2, y2 = stored.upright.stored_box(np.asarray(box, np.float64))
        step_x, step_y = 1 << stored.layout.sub_x, 1 << stored.layout.sub_y
        rows, columns = stored.planes[0].shape[:2]
        left, right = _aligned_span(x1 - stored.left, x2 - stored.left, columns, step_x)
        top, bottom = _aligned_span(y1 - stored.top, y2 - stored.top, rows, step_y)
        planes = [stored.planes[0][top:bottom, left:right].copy()]
        for plane in stored.planes[1:]:
            planes.append(
                plane[top // step_y : -(-bottom // step_y), left // step_x : -(-right // step_x)].copy()
            )
        copied = replace(stored, planes=tuple(planes), left=stored.left + left, top=stored.top + top)
        return PlanePicture(lambda: copied)

    def _clip(self, box: Array | None) -> tuple[int, int, int, int]:
        """The whole upright pixels of `box` that are available: [left, top, right, bottom)."""
        stored = self._stored
        rows, columns = stored.planes[0].shape[:2]
        # The inverse of `stored_box`, applied to the pixels that this picture holds.
        inverse = cv2.invertAffineTransform(stored.upright.to_stored)
        x1, y1 = stored.left, stored.top
        corners = np.array([[x1, y1, 1.0], [x1 + columns, y1 + rows, 1.0]]) - [0.5, 0.5, 0.0]
        ends = corners @ inverse.T + 0.5
        low, high = ends.min(axis=0), ends.max(axis=0)
        bounds = (
            int(np.ceil(low[0] - 1e-6)), int(np.ceil(low[1] - 1e-6)),
            int(np.floor(high[0] + 1e-6)), int(np.floor(high[1] + 1e-6)),
        )  # fmt: skip
        if box is None:
            return bounds
        first_x, first_y, last_x, last_y = (float(value) for value in box)
        left, right = (min(max(x, bounds[0]), bounds[2]) for x in (math.floor(first_x), math.ceil(last_x)))
        top, bottom = (min(max(y, bounds[1]), bounds[3]) for y in (math.floor(first_y), math.ceil(last_y)))
        return left, top, right, bottom

    def _to_plane(self, sub_x: int, sub_y: int, siting: tuple[float, float] = (0, 0)) -> Array:
        """(2, 3) map from upright pixel centres to sample centres of a plane with this subsampling and siting."""
        stored = self._stored
        matrix = stored.upright.to_stored - [[0, 0, stored.left + siting[0]], [0, 0, stored.top + siting[1]]]
        return matrix / np.array([[1 << sub_x], [1 << sub_y]])

    def _rgb(
        self, matrix: Array, size: tuple[int, int], interpolation: int, care: ResampleOptions = EXACT
    ) -> Array:
        stored = self._stored
        layout, planes = stored.layout, stored.planes
        back = cv2.invertAffineTransform(matrix)

        to_luma = _compose(self._to_plane(0, 0), back)
        main = sample(planes[0], to_luma, size, interpolation, care)
        if layout.kind == "packed":
            return _packed_to_rgb(main, layout)
        if layout.kind == "gray":
            return cv2.cvtColor(full_range_luma(main, stored.colour), cv2.COLOR_GRAY2RGB)
        to_chroma = _compose(self._to_plane(layout.sub_x, layout.sub_y, stored.siting), back)
        chroma = [sample(plane, to_chroma, size, cv2.INTER_LINEAR, care) for plane in planes[1:]]
        if layout.kind == "semi":
            chroma = list(cv2.split(chroma[0]))
            if layout.blue_first:
                chroma.reverse()
        return yuv_to_rgb(cv2.merge([main, *chroma]), stored.colour)


class PictureMaker:
    """Makes pictures from the decoded frames of one stream.

    Args:
        codec: FFmpeg's name of the codec; it determines the chroma siting.
        aspect: sample aspect ratio; None if pixels are square or the ratio is unknown.
        quarters: extra clockwise quarter turns, in addition to the frames' own rotation.
    """

    def __init__(self, codec: str = "", aspect: Fraction | None = None, quarters: int = 0) -> None:
        self.aspect = aspect
        self._centre_sited = codec in _CENTRE_SITED
        self._quarters = quarters
        self._reformatter: VideoReformatter | None = None
        self._rotation: int | None = None
        self._turn = UNTURNED
        self._eye: Eye | None = None

    def picture(self, frame: VideoFrame) -> PlanePicture:
        """A picture that reads from `frame` and keeps it alive."""
        aspect = self.aspect
        return PlanePicture(lambda: self._read(frame, aspect))

    def _read(self, frame: VideoFrame, aspect: Fraction | None) -> StoredPicture:
        turn, eye = self._shown(frame)
        transfer, primaries = colour_of(frame)
        matrix = resolve_matrix(frame.colorspace, primaries, transfer, frame.height)
        full_range = frame.color_range == 2
        frame = self._readable(frame)
        layout = layouts()[frame.format.name]
        colour = Colour(
            matrix, full_range or layout.full_range, transfer, primaries, layout.depth, layout.shift
        )  # fmt: skip
        siting = self._siting(layout, colour)
        planes = planes_of(frame, layout)
        width, height = frame.width, frame.height
        if eye is not None:
            planes, aspect = eye.planes(planes), eye.aspect(aspect)
            width, height = eye.size(width, height)
        return StoredPicture(planes, layout, colour, siting, upright(width, height, turn, aspect))

    def _shown(self, frame: VideoFrame) -> tuple[Turn, Eye | None]:
        # Reading side data creates a reference cycle with the frame, which keeps its pixels in memory until a later
        # garbage collection. Therefore, side data is read only if the rotation angle has changed; reading the angle
        # creates no cycle.
        if frame.rotation != self._rotation:
            self._rotation = frame.rotation
            self._turn, self._eye = turned(shown_turn(frame), self._quarters), used_eye(frame, self.aspect)
        return self._turn, self._eye

    def _readable(self, frame: VideoFrame) -> VideoFrame:
        """`frame`, converted if its format is not in `layouts()`."""
        name = frame.format.name
        if name in layouts() and all(plane.line_size > 0 for plane in frame.planes):
            return frame
        if self._reformatter is None:
            self._reformatter = VideoReformatter()
        depth = max(component.bits for component in frame.format.components)
        target = name if name in layouts() else plain_format(name, frame.format.is_rgb, depth)
        # The colour space and the range stay the same; only the layout changes.
        return self._reformatter.reformat(
            frame,
            format=target,
            src_color_range=frame.color_range,
            dst_color_range=2 if target in ("rgb24", "gray") else frame.color_range,
            interpolation=_SWS_FLAGS,
        )

    def _siting(self, layout: Layout, colour: Colour) -> tuple[float, float]:
        centre_x, centre_y = ((1 << sub) / 2 - 0.5 for sub in (layout.sub_x, layout.sub_y))
        if self._centre_sited:
            return centre_x, centre_y
        if colour.transfer in (PQ, HLG):
            return 0.0, 0.0  # BT.2100 aligns 4:2:0 chroma with the top left luma sample
        return 0.0, centre_y


def picture_of_rgb(rgb: Array, turn: Turn = UNTURNED) -> PlanePicture:
    """A picture over an RGB uint8 array (h, w, 3), which is not copied."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"expected RGB uint8 (h, w, 3), got {rgb.dtype} {rgb.shape}")
    height, width = rgb.shape[:2]
    layout = layouts()["rgb24"]
    stored = StoredPicture((rgb,), layout, Colour(full_range=True), (0, 0), upright(width, height, turn))
    return PlanePicture(lambda: stored)


def _on_grid(plane: Array, width: int, height: int) -> Array:
    """Every n-th pixel of every m-th row, as a view, because indexing with arrays would be several times slower."""
    down, across = max(1, plane.shape[0] // height), max(1, plane.shape[1] // width)
    return plane[down // 2 :: down, across // 2 :: across]


def _packed_to_rgb(packed: Array, layout: Layout) -> Array:
    codes = {
        (3, True): cv2.COLOR_BGR2RGB, (4, True): cv2.COLOR_BGRA2RGB, (4, False): cv2.COLOR_RGBA2RGB,
    }  # fmt: skip
    code = codes.get((layout.channels, layout.blue_first))
    return packed if code is None else cv2.cvtColor(packed, code)


def _compose(outer: Array, inner: Array) -> Array:
    """The affine map that applies `inner`, then `outer`; both (2, 3)."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def _after_shift(matrix: Array, x: float, y: float) -> Array:
    return _compose(matrix, np.array([[1.0, 0.0, x], [0.0, 1.0, y]]))


def _aligned_span(low: float, high: float, length: int, step: int) -> tuple[int, int]:
    """The range [begin, end) of samples around low..high, within 0..length; never empty.

    `begin` is a multiple of `step`.
    """
    # Uses plain Python numbers, because numpy scalars would take more time than copying the pixels.
    begin = min(max(math.floor(low) - _REGION_MARGIN, 0), length - 1) // step * step
    end = min(max(math.ceil(high) + _REGION_MARGIN, begin + 1), length)
    end = min(length, -(-end // step) * step)
    return begin, end
