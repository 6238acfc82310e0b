"""Frames that somebody else has decoded: arrays with their times."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np

from streamgate.errors import SourceError, UsageError
from streamgate.frames import Array, Frame
from streamgate.sources.base import HintProvider, SourceStats
from streamgate.sources.naming import slug
from streamgate.sources.picture import picture_of_rgb


class ArrayFrames:
    """A `Source` over RGB arrays, which are taken one by one and once: it cannot go back.

    Args:
        frames: uint8 (H, W, 3) arrays with `fps`, else pairs of seconds and such an array.
        name: how the source is displayed, and what its id is made of.
        fps: frames a second.

    Raises:
        UsageError: the first of them is no such array, or `fps` is not positive.
        SourceError: there is none.
    """

    live = False
    turned = None
    duration_seconds: float | None = None
    estimated_frames: int | None = None

    def __init__(self, frames: Iterable[Any], name: str = "frames", fps: float | None = None) -> None:
        if fps is not None and not (isinstance(fps, int | float) and 0 < fps < 1e6):
            raise UsageError(f"fps={fps!r}: give frames per second, above 0")
        if isinstance(frames, str | bytes) or not hasattr(frames, "__iter__"):
            raise UsageError(f"feed takes frames one by one, arrays with their times; got {type(frames).__name__}")
        self.location, self.source_id, self.fps = name, slug(name), fps
        self.stats = SourceStats()
        rest = iter(frames)
        first = next(rest, None)
        if first is None:
            raise SourceError(f"{name}: gives no frame", name)
        self.height, self.width = self._timed(0, first)[1].shape[:2]
        self._items: Iterator[Any] = itertools.chain([first], rest)

    def frames(self, hints: HintProvider | None = None) -> Generator[Frame, None, None]:
        """Yield the frames; see `Source.frames`. Raises UsageError for a wrong one."""
        last = -math.inf
        for index, item in enumerate(self._items):
            pts, pixels = self._timed(index, item)
            if pts <= last:
                raise UsageError(f"frame {index} is at {pts:g} s, and the one before it at {last:g} s; times must rise")
            last = pts
            self.stats.frames += 1
            # A copy: the caller may fill the same array again while this one waits.
            yield Frame(picture_of_rgb(pixels.copy()), pts, frame_index=index)

    def _timed(self, index: int, item: Any) -> tuple[float, Array]:
        if self.fps is not None:
            pts, pixels = index / self.fps, item
        elif isinstance(item, tuple | list) and len(item) == 2:
            pts, pixels = item
        else:
            raise UsageError("frames without fps are pairs of a time in seconds and an array: feed((t, array), ...)")
        if isinstance(pts, bool) or not isinstance(pts, int | float | np.number) or not math.isfinite(float(pts)):
            raise UsageError(f"frame {index} has the time {pts!r}; give seconds as a number")
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
            raise UsageError(f"frame {index} must be RGB, uint8 (H, W, 3); got {got}")
        if 0 in pixels.shape:
            raise UsageError(f"frame {index} is empty")
        return float(pts), pixels

    def frame_at(self, pts_seconds: float) -> Frame | None:
        """Nothing: frames that were given are gone."""
        return None

    def frames_from(self, pts_seconds: float) -> Generator[Frame, None, None]:
        """Nothing: frames that were given are gone."""
        yield from ()

    def read_as(self, *, turned: int = 0, combed: bool = False, restarts: bool | None = None) -> None:
        """Nothing of this is ever found of arrays; see `Source.read_as`."""

    def close(self) -> None:
        """Nothing is kept open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
