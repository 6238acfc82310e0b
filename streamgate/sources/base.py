"""The interface of a source, and the values that all sources share."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

from streamgate.frames import Frame

MAX_PIXELS = 16384 * 8704
"""Maximum number of pixels of a picture that is decoded by default; the presets have the same value in
`decoding.max_pixels`.

A header may claim any size, and decoders trust it: they allocate memory before they read the data."""


SAME_TIME_S = 1e-4
"""Tolerance, in seconds, for matching a time to a frame; records store times rounded to microseconds."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The part [start, end) of a video to read, in pts seconds; an `end` of 0.0 means the end of the video."""

    start: float = 0.0
    end: float = 0.0

    def ends_before(self, pts_seconds: float) -> bool:
        """Whether a frame at `pts_seconds` is past the end of the range."""
        return bool(self.end) and pts_seconds >= self.end - SAME_TIME_S

    def length(self, duration_seconds: float | None) -> float | None:
        """Length of the range in seconds, clipped to a video of that duration; None if the duration is unknown."""
        if duration_seconds is None:
            return None
        return max(0.0, min(self.end or duration_seconds, duration_seconds) - self.start)


WHOLE = TimeRange()


@dataclass(slots=True)
class SourceStats:
    """Counters that are updated while a source is read.

    Attributes:
        frames: frames yielded.
        left_out_at_end: frames after the last yielded frame that were not decoded because they were not needed.
        decode_errors: packets or pictures that could not be decoded or were damaged.
        pts_estimated: frames whose time was missing or stepped backwards and was replaced.
        combed: frames that were deinterlaced although they are not flagged as interlaced.
        not_on_gpu: codec that is decoded on the CPU although a GPU was requested; empty if decoding runs as requested.
    """

    frames: int = 0
    left_out_at_end: int = 0
    decode_errors: int = 0
    pts_estimated: int = 0
    combed: int = 0
    not_on_gpu: str = ""


def first_at(frames: Generator[Frame, None, None], pts_seconds: float) -> Frame | None:
    """The first of `frames` if its time is `pts_seconds`, else None; closes the generator."""
    with closing(frames):
        frame = next(frames, None)
    return frame if frame is not None and abs(frame.pts_seconds - pts_seconds) <= SAME_TIME_S else None


class Interest(Enum):
    """How likely it is that the frames after a given frame matter."""

    EMPTY = "empty"
    """No track is alive, and the last detection found no face."""
    STEADY = "steady"
    """All faces are tracked and move slowly."""
    KNOWN = "known"
    """As `STEADY`, and each face was in view long enough: only key frames are needed until something changes."""
    LIVELY = "lively"
    """In all other cases: every frame may matter."""


class HintProvider(Protocol):
    """The consumer's hints about which frames a source may skip. The source calls the methods in its own thread.

    Attributes:
        discards: the interests after which non-reference frames may be skipped; after an `EMPTY` frame, all frames
            that are not due for detection may be skipped.
        max_gap_s: no frame is skipped if the frames before and after it would then be more than this many seconds
            apart, except after `EMPTY` frames. This limit keeps the temporal neighbours of each face.
        max_skip_s: longest span between two key frames, in seconds, that may be skipped at once after `EMPTY` and
            `KNOWN` frames; 0 disables skipping.
        probe_interval_s: seconds between two frames that are examined while there is no face.
    """

    discards: frozenset[Interest]
    max_gap_s: float
    max_skip_s: float
    probe_interval_s: float

    def interest(self, pts_seconds: float) -> Interest:
        """The interest of the frame at that time, which was already yielded; blocks until the frame was examined."""
        ...

    def sees_face(self, frame: Frame) -> bool:
        """Whether a frame shows a face. The frame is examined before its turn; if it shows no face, it is still yielded
        later."""
        ...


class Source(Protocol):
    """An opened input. Use it in a `with` block; `frames()` starts at the beginning each time.

    The methods with a body are defaults for sources that keep no file open and whose pictures need no correction.

    Attributes:
        location: the input as the user gave it, without secrets, for display and records.
        source_id: stable name, safe as a path component.
        width, height: size of the first upright picture in pixels.
        duration_seconds: None when unknown.
        fps: mean frame rate, None when unknown or meaningless.
        live: frames arrive in real time.
        estimated_frames: approximate number of frames, None when unknown.
        stats: counters of the current pass.
        turned: extra clockwise quarter turns applied to the pictures, in addition to the source's own metadata; None
            if the pictures cannot be turned.
    """

    location: str
    source_id: str
    width: int
    height: int
    duration_seconds: float | None
    fps: float | None
    live: bool
    estimated_frames: int | None
    stats: SourceStats

    @property
    def turned(self) -> int | None: ...

    def frames(self, hints: HintProvider | None = None) -> Generator[Frame, None, None]:
        """Yield the frames in presentation order. A frame keeps its decoder buffer alive: release the frame early.

        With `hints`, frames that the consumer does not need are skipped, as far as the format allows.

        Damaged packets are counted and skipped. Closing the generator releases the input.

        Raises:
            SourceError: nothing could be read.
        """
        ...

    def frame_at(self, pts_seconds: float) -> Frame | None:
        """The frame that `frames()` yields at that time (within 0.1 ms), or None; its `frame_index` is None.

        The frame's picture stays valid, unlike the pictures of frames from `frames()`. Raises SourceError.
        """
        return first_at(self.frames_from(pts_seconds), pts_seconds)

    def frames_from(self, pts_seconds: float) -> Generator[Frame, None, None]:
        """Yield the frames of `frames()`, starting at the first one at or after that time; `frame_index` is None.

        A pass of `frames()` in progress is not affected. Raises SourceError.
        """
        ...

    def read_as(self, *, turned: int = 0, combed: bool = False, restarts: bool | None = None) -> None:
        """Set known properties of the source; they apply from the next pass, which starts at the beginning.

        Properties that do not apply to this kind of source are ignored.

        Args:
            turned: extra clockwise quarter turns of the pictures, in addition to the source's own metadata.
            combed: whether the source is interlaced but not flagged as such.
            restarts: whether the clock of the source restarts within the file; None if unknown.
        """
        return

    def close(self) -> None:
        """Release the input; closing twice is fine."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
