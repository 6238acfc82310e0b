"""What every source offers."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

from streamgate.frames import Frame

MAX_PIXELS = 16384 * 8704
"""Largest picture that is decoded where no configuration says otherwise: as `decoding.max_pixels` of the presets.

A header may claim any size and decoders believe it: they allocate before they look at what follows."""


SAME_TIME_S = 1e-4
"""Difference up to which a time is that of a frame: records hold microseconds."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The part [start, end) of a video that is read, pts seconds; `end` 0.0: to its end."""

    start: float = 0.0
    end: float = 0.0

    def ends_before(self, pts_seconds: float) -> bool:
        """Whether a frame of that time comes after it."""
        return bool(self.end) and pts_seconds >= self.end - SAME_TIME_S

    def length(self, duration_seconds: float | None) -> float | None:
        """Seconds of it in a video of that duration; None where that is not known."""
        if duration_seconds is None:
            return None
        return max(0.0, min(self.end or duration_seconds, duration_seconds) - self.start)


WHOLE = TimeRange()


@dataclass(slots=True)
class SourceStats:
    """Counters that grow while a source is read.

    Attributes:
        frames: frames given out.
        decode_errors: packets or pictures that could not be decoded, or came out damaged.
        pts_estimated: frames whose time was missing or stepped backwards and was replaced.
        combed: frames that were deinterlaced although they do not say that they are interlaced.
        not_on_gpu: codec that the CPU decodes although a GPU was asked for; empty where it does what was asked.
    """

    frames: int = 0
    decode_errors: int = 0
    pts_estimated: int = 0
    combed: int = 0
    not_on_gpu: str = ""


def first_at(frames: Generator[Frame, None, None], pts_seconds: float) -> Frame | None:
    """The first of `frames` when it is that of a time, else None; closes them."""
    with closing(frames):
        frame = next(frames, None)
    return frame if frame is not None and abs(frame.pts_seconds - pts_seconds) <= SAME_TIME_S else None


class Interest(Enum):
    """What a frame means for the ones after it."""

    EMPTY = "empty"
    """Nothing is followed, and the last look found no face."""
    STEADY = "steady"
    """All faces are followed and move slowly."""
    LIVELY = "lively"
    """Anything else: every frame may matter."""


class HintProvider(Protocol):
    """Whoever looks at a source's frames tells it what to leave out. Asked by the source, in its own thread.

    Attributes:
        discards: after frames of this interest, those that no other frame builds on may be left out; after EMPTY
            ones all that are not due for a look.
        max_skip_s: seconds without a face that may be skipped at once, 0 for none.
        probe_interval_s: seconds between two frames that are looked at while there is no face.
    """

    discards: frozenset[Interest]
    max_skip_s: float
    probe_interval_s: float

    def interest(self, pts_seconds: float) -> Interest:
        """What the frame of that time, which was given out, means; waits until it has been looked at."""
        ...

    def sees_face(self, frame: Frame) -> bool:
        """Look at a frame ahead of its turn; if there is no face in it, it will be given out in its turn."""
        ...


class Source(Protocol):
    """An opened input. Use it in a `with` block; `frames()` starts at the beginning each time.

    Attributes:
        location: what the user named, without secrets, for display and records.
        source_id: stable name, safe as a path part.
        width, height: of the first upright picture in pixels.
        duration_seconds: None when unknown.
        fps: mean frame rate, None when unknown or meaningless.
        live: frames arrive in real time.
        estimated_frames: about how many frames there are, None when unknown.
        stats: counters of the reading in progress.
        turned: quarter turns clockwise by which its pictures are turned besides what it says itself; None where they
            cannot be.
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
        """Yield the frames in the order shown. A frame holds its decoder buffer: let go of it early.

        With a guide those are left out that it does without, as far as the format allows.

        Damaged packets are counted and passed over. Closing the generator releases the input.

        Raises:
            SourceError: nothing could be read.
        """
        ...

    def frame_at(self, pts_seconds: float) -> Frame | None:
        """The frame that `frames()` gives at a time (to 0.1 ms), None when there is none; its `frame_index` is None.

        Its picture stays valid, unlike those of `frames()`. Raises SourceError.
        """
        ...

    def frames_from(self, pts_seconds: float) -> Generator[Frame, None, None]:
        """Yield the frames of `frames()` from that of a time on, or the first one after it; `frame_index` is None.

        Independent of a reading in progress. Raises SourceError.
        """
        ...

    def read_as(self, *, turned: int = 0, combed: bool = False, restarts: bool | None = None) -> None:
        """Read it from now on, from its beginning, as it was found to be; what it cannot be is left alone.

        Args:
            turned: quarter turns clockwise by which its pictures are turned besides what it says itself.
            combed: it is interlaced without saying so.
            restarts: its clock starts again on the way, or not; None where nobody knows.
        """
        ...

    def close(self) -> None:
        """Release the input; closing twice is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
