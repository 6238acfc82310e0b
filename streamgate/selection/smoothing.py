"""Smooths quality over time, so that a single lucky frame does not win: its neighbours must confirm its quality
(docs/design.md 4.5)."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from statistics import fmean, median


class QualityHistory:
    """The qualities of a track's scored candidates over time; `forget` limits their number."""

    def __init__(self, short_s: float, long_s: float) -> None:
        self._half_short = short_s / 2
        self._half_long = long_s / 2
        self._times: list[float] = []
        self._values: list[float] = []

    def add(self, pts_seconds: float, quality: float) -> None:
        """Add the quality of a scored candidate; a second quality for the same time replaces the first."""
        index = bisect.bisect_left(self._times, pts_seconds)
        if index < len(self._times) and self._times[index] == pts_seconds:
            self._values[index] = quality
            return
        self._times.insert(index, pts_seconds)
        self._values.insert(index, quality)

    def smoothed(self, pts_seconds: float, quality: float) -> float:
        """The minimum of `quality` and the median of the qualities within short_s / 2 of the candidate, including its
        own."""
        return min(quality, median(self._near(pts_seconds, self._half_short) or [quality]))

    def context(self, pts_seconds: float, quality: float) -> float:
        """The mean of the qualities within long_s / 2 of the candidate, including its own."""
        return fmean(self._near(pts_seconds, self._half_long) or [quality])

    def forget(self, before: float, watched: Sequence[float], reach: float) -> None:
        """Drop entries that are earlier than `before` and further than `reach` from every time in `watched`."""
        if not self._times or self._times[0] >= before:
            return
        keep = [
            index
            for index, time in enumerate(self._times)
            if time >= before or any(abs(time - one) <= reach for one in watched)
        ]
        self._times = [self._times[index] for index in keep]
        self._values = [self._values[index] for index in keep]

    def drop_after(self, pts_seconds: float) -> None:
        """Drop the entries later than `pts_seconds`."""
        index = bisect.bisect_right(self._times, pts_seconds)
        del self._times[index:], self._values[index:]

    def _near(self, pts_seconds: float, half: float) -> list[float]:
        # With the tolerance, entries at a distance of exactly `half` are included despite rounding.
        first = bisect.bisect_left(self._times, pts_seconds - half - 1e-9)
        last = bisect.bisect_right(self._times, pts_seconds + half + 1e-9)
        return self._values[first:last]
