"""Time of live frames: seconds since the first frame, whatever the camera's clock does, and pace."""

from __future__ import annotations

import time

LEAP_S = 2.0
"""A step of the camera's clock this much longer than what passed here is a jump of its clock, not a pause."""
_NOMINAL_S = 1 / 25
_SAME_TIME = 1e-5  # what records, in microseconds, could not tell apart


class LiveClock:
    """Makes times that count from the first frame and strictly increase.

    The camera's own time stamps count. One that steps back, leaps ahead of the time that passed here or is missing
    is replaced by the time of arrival, and those after it go on from there.
    """

    def __init__(self) -> None:
        self._base: float | None = None
        self._seconds = 0.0
        self._arrived: float | None = None
        self._step = _NOMINAL_S

    def stamp(self, pts: float | None, arrived: float) -> tuple[float, bool]:
        """Give the next frame its time.

        Args:
            pts: the camera's, in seconds; None when it gave none.
            arrived: `time.monotonic()` of arrival.

        Returns:
            Seconds since the first frame, and whether they had to be estimated.
        """
        if self._arrived is None:
            self._arrived, self._base = arrived, pts
            return 0.0, pts is None
        passed = max(0.0, arrived - self._arrived)
        here = self._seconds + max(passed, self._step)
        seconds, estimated = here, True
        if pts is not None:
            step = 0.0 if self._base is None else pts - self._base - self._seconds
            if _SAME_TIME < step <= passed + LEAP_S:
                seconds, estimated = self._seconds + step, False
                self._step = min(step, 1.0)
            else:
                self._base = pts - here
        self._arrived, self._seconds = arrived, seconds
        return seconds, estimated


class Lateness:
    """How far reading is behind the camera: what it sent waits in buffers of the network.

    The camera's time and ours drift apart slowly, so the least delay of the last minute counts as none.
    """

    def __init__(self) -> None:
        self._least: dict[int, float] = {}

    def of(self, seconds: float, arrived: float) -> float:
        """Seconds that a frame with time `seconds` came too late at `arrived` (`time.monotonic()`)."""
        delay, half_minute = arrived - seconds, int(arrived // 30)
        self._least[half_minute] = min(delay, self._least.get(half_minute, delay))
        for old in [one for one in self._least if one < half_minute - 1]:
            del self._least[old]
        return delay - min(self._least.values())


class Pace:
    """Holds frames of a source that does not pace itself until their time has come."""

    def __init__(self) -> None:
        self._anchor: float | None = None
        self._pts: float | None = None

    def wait(self, pts: float | None) -> float:
        """Sleep until a frame with this time stamp is due; returns the moment, `time.monotonic()`."""
        now = time.monotonic()
        pts = pts if pts is not None else (self._pts or 0.0) + _NOMINAL_S
        leap = self._pts is None or not 0 <= pts - self._pts <= LEAP_S
        self._pts = pts
        if self._anchor is None or leap or now > self._anchor + pts:
            # Late, first, or after a jump of the clock: the pace starts anew from here.
            self._anchor = now - pts
            return now
        time.sleep(self._anchor + pts - now)
        return time.monotonic()
