"""Between the camera and the analysis: the newest frames win."""

from __future__ import annotations

import bisect
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from streamgate.frames import Frame
from streamgate.sources.live import ArrivedFrame


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A point in time: `monotonic` for measuring, `wall` (UTC) for telling."""

    monotonic: float
    wall: datetime

    @classmethod
    def now(cls) -> Timestamp:
        return cls(time.monotonic(), datetime.now(UTC))


class FrameQueue:
    """Holds a bounded number of decoded frames; a further one pushes the oldest out.

    One thread puts, one takes; anyone may close.
    """

    def __init__(self, limit: int) -> None:
        self.taken = 0
        """Frames handed to the analysis."""
        self.waited = 0.0
        """Seconds that the taker has waited in all."""
        self.closed_at: Timestamp | None = None
        self._limit = limit
        self._frames: deque[ArrivedFrame] = deque()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, arrived: ArrivedFrame) -> int:
        """Add a frame; returns how many were dropped for it (the frame itself once the queue is closed)."""
        with self._changed:
            if self.closed_at is not None:
                return 1
            dropped = len(self._frames) >= self._limit
            if dropped:
                self._frames.popleft()
            self._frames.append(arrived)
            self._changed.notify()
            return int(dropped)

    def close(self) -> None:
        """Nothing comes any more; what is in can still be taken. The first call sets `closed_at`."""
        with self._changed:
            if self.closed_at is None:
                self.closed_at = Timestamp.now()
            self._changed.notify()

    def frames(self, arrivals: ArrivalTimes) -> Iterator[Frame]:
        """Yield frames as they come, oldest first, until the queue is closed and empty; notes their arrival."""
        while True:
            began = time.perf_counter()
            with self._changed:
                self._changed.wait_for(lambda: bool(self._frames) or self.closed_at is not None)
                self.waited += time.perf_counter() - began
                if not self._frames:
                    return
                arrived = self._frames.popleft()
            self.taken += 1
            frame = arrived.frame
            arrivals.note(frame.pts_seconds, Timestamp(arrived.monotonic, frame.captured_at or datetime.now(UTC)))
            yield frame
            # Without this the loop would hold a frame's pixels while it waits for the next.
            del frame, arrived


class ArrivalTimes:
    """When the frames of one connection came in, by their time stamp, for as long as somebody may ask. Thread-safe.

    Args:
        keep_s: stretch of time stamps remembered, seconds.
    """

    def __init__(self, keep_s: float) -> None:
        self._keep = keep_s
        self._pts: list[float] = []
        self._moments: list[Timestamp] = []
        self._mutex = threading.Lock()

    def note(self, pts_seconds: float, moment: Timestamp) -> None:
        """Frames come in ascending order of time stamps."""
        with self._mutex:
            self._pts.append(pts_seconds)
            self._moments.append(moment)
            if len(self._pts) % 256 == 0:
                first = bisect.bisect_left(self._pts, pts_seconds - self._keep)
                del self._pts[:first], self._moments[:first]

    def at(self, pts_seconds: float) -> Timestamp | None:
        """Arrival of the first frame at or after a time stamp; None when there is none yet."""
        with self._mutex:
            return self._get(bisect.bisect_left(self._pts, pts_seconds))

    def after(self, pts_seconds: float) -> Timestamp | None:
        """Arrival of the first frame after a time stamp; None when there is none yet."""
        with self._mutex:
            return self._get(bisect.bisect_right(self._pts, pts_seconds))

    def _get(self, index: int) -> Timestamp | None:
        return self._moments[index] if index < len(self._moments) else None
