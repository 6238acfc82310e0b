"""Finds the time in a camera's main stream that corresponds to a time in the camera's substream.

The two streams have separate clocks, and one stream arrives later than the other. For each stream, the minimum of
arrival time minus time stamp is measured over the last minute. The difference between the two minima is the offset of
the clocks, including their drift, but it is wrong by the delay, which is the difference between the transmission times
of the two streams. The delay is found by comparing pictures. Motion in the scene is visible in both streams, so
small pictures of both streams are compared at all possible delays. Once the delay is found, it hardly changes, and
comparing a few pictures shows whether it is still correct. A scene without motion gives no information; in that case,
the last known delay is kept.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import cv2
import numpy as np

from streamgate.frames import Array, Frame, Picture

SIDE = (160, 90)
"""Size of the small pictures. It is the same for any aspect ratio of the frames, because both streams show the same
part of the scene."""
LOOK_S = 0.06
"""Interval between the small pictures of the substream; the match at times in between is interpolated."""
LOOKS_KEPT = 170
"""Number of small pictures of the substream that are kept, which is enough for ten seconds."""
FURTHEST_S = 4.0
"""Maximum of the delay between the two streams, in either direction."""
_AFTER_CONNECT_S = 0.3
"""Maximum change of the delay when a stream reconnects."""
_GROWTH = 0.002
"""Growth of the offset's uncertainty, in seconds per second."""
_DRIFT_S = 60.0
"""Minimum time over which drift is measured; over a shorter time, an error in a comparison would look like drift."""
_MEDIAN = 5
_WORST_DRIFT = 500e-6
_MOVING = 1500
"""Number of pixels that are compared: those that change most."""
_SLACK_S = 0.2
_STEP = 4
"""Number of delays that are tried per picture interval."""
_LEAST_MOTION = 1.0
"""Minimum variance over time, averaged over the pixels of the small pictures (in squared grey levels), for a scene to
count as having motion."""
_RISE = 0.35
"""Minimum relative increase of the difference between the pictures, from the best lag to every lag that is two to three
picture intervals away. With a smaller increase, a result is not sure."""
_CONTRADICTED = 3
_ENOUGH = 3
"""Number of comparisons after which an offset is only checked at intervals."""
_CHECK_S = 30.0
"""Interval between checks. Within this time, the clocks drift apart by less than half a picture interval, and this
drift is also visible in the arrival times."""
_RIVAL = 0.15
"""Like `_RISE`, for every lag that is two or more picture intervals away from the best lag."""


def small_picture(picture: Picture | Frame, times: int) -> Array:
    """Luma, uint8 (90 * 160,); each pixel is the mean of `times` x `times` samples."""
    width, height = SIDE
    samples = picture.luma_samples(width * times, height * times)
    return cv2.resize(samples, SIDE, interpolation=cv2.INTER_AREA).ravel()


@dataclass(frozen=True, slots=True)
class Look:
    """A small picture and its time in its stream, in seconds."""

    seconds: float
    luma: Array


@dataclass(frozen=True, slots=True)
class Match:
    """The lag at which pictures of the main stream match those of the substream.

    Attributes:
        lag: seconds to subtract from the main stream's times, in addition to the assumed offset.
        confidence: 0..1; 0 if other lags match equally well.
        off_limits: whether there is motion and the best lag is the smallest or the largest one that was tried.
    """

    lag: float
    confidence: float
    off_limits: bool = False

    @property
    def sure(self) -> bool:
        return self.confidence >= 0.5


def match(main: Sequence[Look], sub: Sequence[Look], furthest: float, spacing: float) -> Match | None:
    """Find the lag within +-`furthest` seconds at which both streams match best; None if there are too few pictures.

    Args:
        main: pictures of the main stream, with times converted to the substream's clock by the assumed offset.
        spacing: seconds between two pictures of the main stream.
    """
    if len(main) < 2 or len(sub) < 4:
        return None
    at = np.array([look.seconds for look in main])
    sub = around(sub, at[0] - furthest - _SLACK_S, at[-1] + furthest + _SLACK_S)
    if len(sub) < 4:
        return None
    theirs = np.stack([look.luma for look in sub])
    times = np.array([look.seconds for look in sub])
    # Every fourth picture is enough, because the variance is only used to select and weight the pixels to compare.
    variance = theirs[:: max(1, min(4, len(sub) // 8))].astype(np.float32).var(axis=0)
    if float(variance.mean()) < _LEAST_MOTION:
        return Match(0.0, 0.0)
    # Only moving pixels carry information about time; noise and the differences between the two encoders do not.
    moving = np.argpartition(variance, -_MOVING)[-_MOVING:]
    weights = np.sqrt(np.clip(variance[moving] - np.median(variance), 0.0, None))
    theirs = theirs[:, moving] * weights
    ours = np.stack([look.luma[moving] for look in main]) * weights
    # einsum instead of a matrix product, whose library would start busy-waiting threads for this small computation.
    product = np.einsum("ip,jp->ij", ours, theirs)
    squares = (ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1)[None] - 2 * product
    step = spacing / _STEP
    reach = int(furthest / step)
    lags = np.arange(-reach, reach + 1) * step
    least = max(2, (len(main) + 1) // 2)
    gap = 2.5 * float(np.median(np.diff(times)))
    wanted = at[None] - lags[:, None]
    right = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    left = right - 1
    apart = times[right] - times[left]
    near = (wanted >= times[0]) & (wanted <= times[-1]) & (apart <= gap)
    share = (wanted - times[left]) / np.maximum(apart, 1e-6)
    rows = np.arange(len(main))[None]
    mixed = np.where(near, squares[rows, left] * (1 - share) + squares[rows, right] * share, 0.0)
    counts = near.sum(axis=1)
    costs = np.where(counts >= least, mixed.sum(axis=1) / np.maximum(counts, 1), np.nan)
    if np.isnan(costs).all():
        return None
    best = int(np.nanargmin(costs))
    floor = float(costs[best])
    lag = float(lags[best])
    if 0 < best < len(lags) - 1 and not np.isnan(costs[[best - 1, best + 1]]).any():
        before, after = float(costs[best - 1]), float(costs[best + 1])
        bend = before - 2 * floor + after
        if bend > 0:
            lag += step * 0.5 * (before - after) / bend
    far = np.abs(lags - lag) >= 2 * spacing
    others = costs[far & ~np.isnan(costs)]
    if not others.size or best in (0, len(lags) - 1):
        return Match(lag, 0.0, bool(others.size))
    near_by = costs[far & (np.abs(lags - lag) <= 3 * spacing) & ~np.isnan(costs)]
    rise = float(near_by.min()) / max(floor, 1e-6) - 1 if near_by.size else 0.0
    rival = float(others.min()) / max(floor, 1e-6) - 1
    return Match(lag, float(np.clip(min(rise / _RISE, rival / _RIVAL) / 2, 0.0, 1.0)))


class ArrivalClock:
    """Offset between arrival times and time stamps of one connection. One thread calls `note`; any thread may read."""

    def __init__(self) -> None:
        self._least: dict[int, float] = {}

    def note(self, seconds: float, arrived: float) -> None:
        """Record that a picture with time stamp `seconds` arrived at `arrived` (`time.monotonic()`)."""
        delay, half_minute = arrived - seconds, int(arrived // 30)
        least = self._least.get(half_minute)
        if least is None:
            self._least = {key: value for key, value in self._least.items() if key >= half_minute - 1}
        if least is None or delay < least:
            self._least[half_minute] = delay

    @property
    def base(self) -> float | None:
        """Minimum of arrival time minus time stamp over the last minute; None before the first picture."""
        return min(self._least.values(), default=None) if self._least else None


@dataclass(frozen=True, slots=True)
class _Found:
    """An offset found by comparing pictures, the time when it was found (`time.monotonic()`), and the offset that
    arrival times gave at that time."""

    at: float
    offset: float
    arrival: float

    def worst(self, now: float, sign: int) -> float:
        """Maximum change of the offset by drift since `at`, in the direction of `sign` (1 or -1)."""
        return sign * (_WORST_DRIFT * (now - self.at) + 0.002)


class Alignment:
    """Tracks the offset between a camera's two streams: main stream's time = substream's time + offset. Thread-safe.

    Attributes:
        confidence: confidence of the last comparison, 0..1.
        drift: relative drift of the two clocks, parts per million; None until it is known.
    """

    def __init__(self) -> None:
        self.confidence = 0.0
        self._mutex = threading.Lock()
        self._main: ArrivalClock | None = None
        self._sub: ArrivalClock | None = None
        self._contradicted = 0
        self._delay = 0.0
        self._doubt = FURTHEST_S
        self._since = time.monotonic()
        self.drift: float | None = None
        self._found: deque[_Found] = deque(maxlen=32)

    def connected(self, *, main: ArrivalClock | None = None, sub: ArrivalClock | None = None) -> None:
        """Record that one of the two streams has a new connection."""
        with self._mutex:
            self._main, self._sub = main or self._main, sub or self._sub
            self._doubt = min(FURTHEST_S, max(self._doubt, _AFTER_CONNECT_S))
            self._since = time.monotonic()
            self._found.clear()
            self.drift = None

    @property
    def offset(self) -> float | None:
        """The current offset in seconds; None until both streams have delivered pictures."""
        arrival = self._arrival()
        if arrival is None:
            return None
        with self._mutex:
            found, delay = list(self._found)[-_MEDIAN:], self._delay
        if not found:
            return arrival + delay
        now = time.monotonic()
        # Arrival times show the drift of the clocks. Changes that are larger than the worst drift are network jitter.
        return median(
            one.offset + min(max(arrival - one.arrival, one.worst(now, -1)), one.worst(now, 1)) for one in found
        )

    def _arrival(self) -> float | None:
        """The offset according to arrival times alone."""
        main, sub = self._main, self._sub
        ours, theirs = (None if main is None else main.base), (None if sub is None else sub.base)
        return None if ours is None or theirs is None else theirs - ours

    @property
    def delay(self) -> float:
        """Seconds by which the main stream arrives later than the substream; 0 until this is known."""
        return self._delay

    @property
    def doubt(self) -> float:
        """Uncertainty of the offset in seconds."""
        with self._mutex:
            grown = self._doubt + _GROWTH * (time.monotonic() - self._since)
            return max(self._doubt, min(_AFTER_CONNECT_S, grown))

    @property
    def found(self) -> bool:
        """Whether the offset was found in pictures of the current connections."""
        return self._doubt < _AFTER_CONNECT_S

    @property
    def due(self) -> bool:
        """Whether the offset should be checked with pictures the next time that pictures are decoded."""
        return len(self._found) < _ENOUGH or time.monotonic() - self._since >= _CHECK_S

    def suspect(self) -> None:
        """Request a check of the offset at the next lookup, because a face was not the expected one."""
        with self._mutex:
            self._since = min(self._since, time.monotonic() - _CHECK_S)

    def learn(self, result: Match, spacing: float) -> None:
        """Update the offset with the result of a comparison based on the current offset."""
        self.confidence = result.confidence
        if not result.sure:
            return
        offset, arrival, now = self.offset, self._arrival(), time.monotonic()
        if offset is None or arrival is None:
            return
        with self._mutex:
            self._contradicted = 0
            # A single comparison may be off by one picture if a coarsely coded substream repeats pictures.
            self._found.append(_Found(now, offset + result.lag, arrival))
            self._delay = median(one.offset - one.arrival for one in list(self._found)[-_MEDIAN:])
            self._doubt, self._since = min(1.5 * spacing, 0.1), now
            self.drift = _drift(list(self._found))

    def doubted(self) -> None:
        """Record that pictures contradict the offset. After three such calls without a sure result in between, all
        possible delays are searched again."""
        with self._mutex:
            self._contradicted += 1
            if self._contradicted < _CONTRADICTED:
                return
            self._contradicted = 0
            self._doubt, self._since = FURTHEST_S, time.monotonic()
            self._found.clear()
            self.drift = None


def _drift(found: Sequence[_Found]) -> float | None:
    """The median slope of offsets over time (Theil-Sen), parts per million; None if there is too little data."""
    if len(found) < 4 or found[-1].at - found[0].at < _DRIFT_S:
        return None
    pairs = [(a, b) for a, b in combinations(found, 2) if b.at - a.at > _DRIFT_S / 2]
    return 1e6 * median((b.offset - a.offset) / (b.at - a.at) for a, b in pairs)


def around(looks: Iterable[Look], start: float, end: float) -> list[Look]:
    """The looks from `start` to `end`. `looks` is in order of time, and another thread may append to it."""
    looks = list(looks)
    times = [look.seconds for look in looks]
    return looks[bisect_left(times, start) : bisect_right(times, end)]
