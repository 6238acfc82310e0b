"""The queue between camera and analysis, which drops the oldest frames when it is full and records arrival times."""

from __future__ import annotations

import bisect
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from streamgate.frames import Frame


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A point in time: `monotonic` for measuring, `wall` (UTC) for display."""

    monotonic: float
    wall: datetime

    @classmethod
    def now(cls) -> Timestamp:
        return cls(time.monotonic(), datetime.now(UTC))


class FrameQueue:
    """The frames of one connection. It holds a bounded number of frames; when it is full, a new frame replaces the
    oldest.

    One thread adds frames and one thread takes them; any thread may close the queue and ask for arrival times.

    Args:
        limit: maximum number of frames in the queue.
        keep_s: arrival times are remembered for taken frames whose time stamps are at most this many seconds older
            than the time stamp of the frame taken last.
    """

    def __init__(self, limit: int, keep_s: float) -> None:
        self.taken = 0
        """Number of frames that the analysis has taken."""
        self.waited = 0.0
        """Number of seconds that the consumer has waited for frames in total."""
        self.closed_at: Timestamp | None = None
        self._limit = limit
        self._keep = keep_s
        self._frames: deque[tuple[Frame, float]] = deque()
        self._pts: list[float] = []
        self._moments: list[Timestamp] = []
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame, monotonic: float) -> int:
        """Add a frame that arrived at `monotonic`; time stamps must ascend.

        Returns the number of dropped frames; once the queue is closed, the new frame is dropped.
        """
        with self._changed:
            if self.closed_at is not None:
                return 1
            dropped = len(self._frames) >= self._limit
            if dropped:
                self._frames.popleft()
            self._frames.append((frame, monotonic))
            self._changed.notify()
            return int(dropped)

    def close(self) -> None:
        """Accept no more frames; the queued frames can still be taken. The first call sets `closed_at`."""
        with self._changed:
            if self.closed_at is None:
                self.closed_at = Timestamp.now()
            self._changed.notify()

    def frames(self) -> Iterator[Frame]:
        """Yield frames as they arrive, oldest first, until the queue is closed and empty."""
        while True:
            began = time.perf_counter()
            with self._changed:
                self._changed.wait_for(lambda: bool(self._frames) or self.closed_at is not None)
                self.waited += time.perf_counter() - began
                if not self._frames:
                    return
                frame, monotonic = self._frames.popleft()
                self._pts.append(frame.pts_seconds)
                self._moments.append(Timestamp(monotonic, frame.captured_at or datetime.now(UTC)))
                if len(self._pts) % 256 == 0:
                    first = bisect.bisect_left(self._pts, frame.pts_seconds - self._keep)
                    del self._pts[:first], self._moments[:first]
            self.taken += 1
            yield frame
            # Without `del`, the loop would hold this frame's pixels while it waits for the next frame.
            del frame

    def arrival_at(self, pts_seconds: float) -> Timestamp | None:
        """Arrival time of the first taken frame at or after a time stamp; None if there is no such frame yet."""
        with self._changed:
            return self._get(bisect.bisect_left(self._pts, pts_seconds))

    def arrival_after(self, pts_seconds: float) -> Timestamp | None:
        """Arrival time of the first taken frame after a time stamp; None if there is no such frame yet."""
        with self._changed:
            return self._get(bisect.bisect_right(self._pts, pts_seconds))

    def _get(self, index: int) -> Timestamp | None:
        return self._moments[index] if index < len(self._moments) else None
