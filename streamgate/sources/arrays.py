"""A source of frames that the caller has decoded: arrays with their times."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy as np

from streamgate.errors import SourceError, UsageError
from streamgate.frames import Array, Frame
from streamgate.sources.base import HintProvider, Source, SourceStats
from streamgate.sources.naming import slug
from streamgate.sources.picture import picture_of_rgb


class ArrayFrames(Source):
    """A `Source` over RGB arrays. The arrays are consumed once, one at a time, so the source cannot seek.

    Args:
        frames: uint8 (H, W, 3) arrays if `fps` is given, else pairs of a time in seconds and such an array.
        name: display name of the source; its id is derived from it.
        fps: frames per second; None if the items contain the times.

    Raises:
        UsageError: the first item is not such an array or pair, or `fps` is not positive.
        SourceError: `frames` is empty.
    """

    live = False
    turned = None
    duration_seconds: float | None = None
    estimated_frames: int | None = None

    def __init__(self, frames: Iterable[Any], name: str = "frames", fps: float | None = None) -> None:
        if fps is not None and not (isinstance(fps, int | float) and 0 < fps < 1e6):
            raise UsageError(f"fps={fps!r}: must be a number of frames per second above 0")
        if isinstance(frames, str | bytes) or not hasattr(frames, "__iter__"):
            raise UsageError(f"feed takes an iterable of (time, array) pairs or of arrays; got {type(frames).__name__}")
        self.location, self.source_id, self.fps = name, slug(name), fps
        self.stats = SourceStats()
        rest = iter(frames)
        first = next(rest, None)
        if first is None:
            raise SourceError(f"{name}: has no frames", name)
        self.height, self.width = self._timed(0, first)[1].shape[:2]
        self._items: Iterator[Any] = itertools.chain([first], rest)

    def frames(self, hints: HintProvider | None = None) -> Generator[Frame, None, None]:
        """Yield the frames; see `Source.frames`. Raises UsageError for an invalid frame."""
        last = -math.inf
        for index, item in enumerate(self._items):
            pts, pixels = self._timed(index, item)
            if pts <= last:
                raise UsageError(
                    f"frame {index} is at {pts:g} s, but the previous frame is at {last:g} s; times must increase"
                )
            last = pts
            self.stats.frames += 1
            # The array is copied, because the caller may reuse it while this frame is still in use.
            yield Frame(picture_of_rgb(pixels.copy()), pts, frame_index=index)

    def _timed(self, index: int, item: Any) -> tuple[float, Array]:
        if self.fps is not None:
            pts, pixels = index / self.fps, item
        elif isinstance(item, tuple | list) and len(item) == 2:
            pts, pixels = item
        else:
            raise UsageError("without fps, each frame must be a pair (t, array), where t is a time in seconds")
        if isinstance(pts, bool) or not isinstance(pts, int | float | np.number) or not math.isfinite(float(pts)):
            raise UsageError(f"frame {index} has the time {pts!r}; give a number of seconds")
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
            raise UsageError(f"frame {index} must be RGB, uint8 (H, W, 3); got {got}")
        if 0 in pixels.shape:
            raise UsageError(f"frame {index} is empty")
        return float(pts), pixels

    def frames_from(self, pts_seconds: float) -> Generator[Frame, None, None]:
        """Yield nothing, because frames are not kept after they were yielded."""
        yield from ()
