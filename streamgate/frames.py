"""Pictures and frames: the pixels that flow through the gate.

Everywhere: boxes are [x1, y1, x2, y2] and landmarks (5, 2) in pixels of the upright source picture, x to
the right and y down; landmarks are viewer's left eye, right eye, nose, left mouth corner, right mouth
corner; pictures are RGB uint8 (height, width, 3); angles are degrees; times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]

SPOILED = ("corrupt", "transition")
"""Reasons that shut the gate on every face of a picture, whatever it looks like: torn or combed, or of two shots."""


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
        """Memory of the pixels held."""
        ...

    def luma(self, box: Array | None = None) -> Array:
        """Luma of `box` (whole picture when None), uint8 (h, w), 0..255 full range, upright.

        The box is rounded outward to whole pixels and clipped to what is there; the result may be empty.
        """
        ...

    def luma_samples(self, width: int, height: int) -> Array:
        """Luma on an even grid of at least that many single pixels, uint8 (h, w), 0..255, upright."""
        ...

    def combed(self, box: Array) -> bool:
        """Whether `box` shows two moments, woven line by line."""
        ...

    def thumbnail(self, long_side: int) -> Array:
        """The picture scaled (anti-aliased) so that its longer side is `long_side`, RGB uint8; never enlarged."""
        ...

    def warp(self, matrix: Array, size: int | tuple[int, int], *, fine: bool = False) -> Array:
        """Resample with `matrix` (2, 3), which maps source pixels to result pixels; RGB uint8 (h, w, 3).

        `size` is the side of a square or (width, height). Outside the picture the edge is repeated.
        Minification is anti-aliased; with `fine` as well as a kept picture deserves, for more work.
        """
        ...

    def region(self, box: Array) -> Picture:
        """An owned copy of the pixels in `box` (clipped); it answers in the same source coordinates."""
        ...


@dataclass(slots=True)
class Frame:
    """One decoded picture with its time.

    Attributes:
        picture: the pixels; borrowed from the decoder, so valid only until the next frame is asked for.
        pts_seconds: presentation time, strictly increasing within a source (live: from the epoch's first frame).
        duration_seconds: how long it is shown, 0.0 when unknown.
        frame_index: rank among the demuxed video packets by corrected time; None after a seek.
        pts_estimated: the container's time was missing or stepped backwards and was replaced.
        captured_at: wall-clock time (UTC) of arrival, live sources only.
        unrelated: nothing connects this picture with the one before it (a folder of single images).
        corrupt: torn: damaged, or built on something that is damaged or missing; no face of it may be kept.
        transition: it lies between two shots that dissolve, fade or are wiped into each other: as `corrupt`.
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
    transition: bool = False
    shown: Array | None = None
    """What black bars leave of the picture, [x1, y1, x2, y2]; None: all of it, or not known."""

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
