"""Pictures and frames: the pixels that flow through the gate.

Conventions of the package: boxes are [x1, y1, x2, y2] and landmarks (5, 2) in pixels of the upright source picture,
with x to the right and y down. The landmarks are the left eye, the right eye, the nose, the left mouth corner and the
right mouth corner, with left and right as seen by the viewer. Pictures are RGB uint8 (height, width, 3). Angles are in
degrees, and times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]

SPOILED = ("corrupt", "transition")
"""Reasons for rejecting all faces of a frame: it is damaged or combed, or part of a transition between shots."""


class Picture(Protocol):
    """Pixels of a source frame, or of a copied region of one, addressed in upright source coordinates."""

    @property
    def width(self) -> int:
        """Width of the whole upright source frame in pixels (also for a region)."""
        ...

    @property
    def height(self) -> int:
        """Height of the whole upright source frame in pixels (also for a region)."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory used by the pixels, in bytes."""
        ...

    def luma(self, box: Array | None = None) -> Array:
        """Luma of `box` (of the whole picture if None), uint8 (h, w), 0..255 full range, upright.

        The box is rounded outward to whole pixels and clipped to the picture; the result may be empty.
        """
        ...

    def luma_samples(self, width: int, height: int) -> Array:
        """Luma of individual pixels on an even grid, at least `width` x `height`, uint8 (h, w), 0..255, upright."""
        ...

    def combed(self, box: Array) -> bool:
        """Whether `box` shows two moments in alternate lines (interlaced)."""
        ...

    def thumbnail(self, long_side: int) -> Array:
        """The picture scaled (anti-aliased) so that its longer side is `long_side`, RGB uint8; never enlarged."""
        ...

    def warp(self, matrix: Array, size: int | tuple[int, int], *, fine: bool = False) -> Array:
        """Resample with `matrix` (2, 3), which maps source pixels to result pixels; RGB uint8 (h, w, 3).

        `size` is the side of a square or (width, height). Outside the picture, the edge is repeated. Minification is
        anti-aliased; `fine` selects the slower, better filter for pictures that are kept.
        """
        ...

    def region(self, box: Array) -> Picture:
        """An owned copy of the pixels in `box` (clipped), addressed in the same source coordinates."""
        ...


@dataclass(slots=True)
class Frame:
    """One decoded picture with its time.

    Attributes:
        picture: the pixels; borrowed from the decoder, so valid only until the next frame is requested.
        pts_seconds: presentation time, strictly increasing within a source; live: since the epoch's first frame.
        duration_seconds: how long the frame is shown, 0.0 if unknown.
        frame_index: index among the demuxed video packets in order of corrected time; None after a seek.
        pts_estimated: the time in the container was missing or went backwards, and was replaced.
        captured_at: wall-clock time (UTC) of arrival, live sources only.
        unrelated: the picture has no relation to the previous picture (a folder of unrelated images).
        corrupt: the frame is damaged, or predicted from damaged or missing frames; none of its faces may be kept.
        left_out: number of frames directly before this frame that were not decoded, because they were not needed.
        transition: the frame is part of a dissolve, fade or wipe between two shots; none of its faces may be kept.
    """

    picture: Picture
    pts_seconds: float
    duration_seconds: float = 0.0
    frame_index: int | None = None
    pts_estimated: bool = False
    captured_at: datetime | None = None
    unrelated: bool = False
    name: str | None = None
    """File name of an image source's picture."""
    corrupt: bool = False
    left_out: int = 0
    transition: bool = False
    shown: Array | None = None
    """The picture area without black bars, [x1, y1, x2, y2]; None if it is unknown or there are no bars."""

    @property
    def width(self) -> int:
        return self.picture.width

    @property
    def height(self) -> int:
        return self.picture.height

    @property
    def spoiled(self) -> str | None:
        """See `Candidate.spoiled`."""
        return next((reason for reason in SPOILED if getattr(self, reason)), None)

    def luma(self, box: Array | None = None) -> Array:
        return self.picture.luma(box)

    def luma_samples(self, width: int, height: int) -> Array:
        return self.picture.luma_samples(width, height)

    def thumbnail(self, long_side: int) -> Array:
        return self.picture.thumbnail(long_side)

    def warp(self, matrix: Array, size: int | tuple[int, int], *, fine: bool = False) -> Array:
        return self.picture.warp(matrix, size, fine=fine)

    def region(self, box: Array) -> Picture:
        return self.picture.region(box)
