"""Times of live frames in seconds since the first frame, even if the camera's clock jumps; also real-time pacing."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAP_S = 2.0
"""If the camera's clock advances by this many seconds more than the local clock, the camera's clock has jumped."""
_NOMINAL_S = 1 / 25
_SAME_TIME = 1e-5  # smaller differences are lost in records, which store microseconds


def live_clock() -> Callable[[float | None, float], tuple[float, bool]]:
    """Return a function that assigns times to frames; the times count from the first frame and strictly increase.

    The function takes the camera's timestamp `pts` in seconds (None if it sent none) and the time of arrival
    (`time.monotonic()`), and returns the seconds since the first frame and whether the time had to be estimated. The
    times follow the camera's timestamps. A timestamp that is missing, steps back, or jumps ahead of the local elapsed
    time is replaced by the time of arrival, and later times continue from there.
    """
    base: float | None = None
    before: float | None = None
    seconds, spacing = 0.0, _NOMINAL_S

    def stamp(pts: float | None, arrived: float) -> tuple[float, bool]:
        nonlocal base, before, seconds, spacing
        if before is None:
            before, base = arrived, pts
            return 0.0, pts is None
        passed = max(0.0, arrived - before)
        here = seconds + max(passed, spacing)
        step = 0.0 if pts is None or base is None else pts - base - seconds
        estimated = not _SAME_TIME < step <= passed + LEAP_S
        if not estimated:
            here = seconds + step
            spacing = min(step, 1.0)
        elif pts is not None:
            base = pts - here
        before, seconds = arrived, here
        return seconds, estimated

    return stamp


def lateness() -> Callable[[float, float], float]:
    """Return a function that measures how far reading is behind the camera because data waits in network buffers.

    The function takes the time `seconds` of a frame and its time of arrival `arrived` (`time.monotonic()`), and returns
    the number of seconds by which the frame was late. The camera's clock and the local clock drift apart slowly, so
    lateness is measured from the smallest delay of the last minute.
    """
    least: dict[int, float] = {}

    def late_by(seconds: float, arrived: float) -> float:
        delay, half_minute = arrived - seconds, int(arrived // 30)
        least[half_minute] = min(delay, least.get(half_minute, delay))
        for old in [one for one in least if one < half_minute - 1]:
            del least[old]
        return delay - min(least.values())

    return late_by


def pacing() -> Callable[[float | None], float]:
    """Return a function that delays the frames of a source that does not deliver them in real time.

    The function sleeps until a frame with the timestamp `pts` is due, and then returns `time.monotonic()`.
    """
    anchor: float | None = None
    last: float | None = None

    def wait(pts: float | None) -> float:
        nonlocal anchor, last
        now = time.monotonic()
        pts = pts if pts is not None else (last or 0.0) + _NOMINAL_S
        leap = last is None or not 0 <= pts - last <= LEAP_S
        last = pts
        if anchor is None or leap or now > anchor + pts:
            # The frame is the first one, is late, or follows a jump of the clock: pacing restarts here.
            anchor = now - pts
            return now
        time.sleep(anchor + pts - now)
        return time.monotonic()

    return wait
