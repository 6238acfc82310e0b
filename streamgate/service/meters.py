"""Figures of a running service: counters, gauges and histograms, in the shapes that Prometheus knows."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bucket bounds of what takes time."""
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Bucket bounds of batch sizes."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram at one moment.

    Attributes:
        buckets: (upper bound, number of observations at or below it), ascending; the last bound is infinity.
        total: sum of all observations, in the histogram's unit.
    """

    buckets: tuple[tuple[float, int], ...]
    total: float

    @property
    def count(self) -> int:
        """Number of observations."""
        return self.buckets[-1][1]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric; a `Distribution` where the metric is a histogram, else a number."""

    value: float | Distribution
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with all its samples, ready to be exposed as it is.

    The name of a counter comes without `_total`, which the exposition format adds. Every sample of a metric has
    the same label names. Label values never hold a URL.
    """

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"]
    samples: tuple[Sample, ...]


class Histogram:
    """Counts the observations of one metric in fixed buckets, by the value of its label where it has one. Thread-safe.

    Values of the label are listed as they are met.
    """

    def __init__(self, label: str | None = None, bounds: Sequence[float] = SECONDS) -> None:
        self._label = label
        self._bounds = tuple(bounds)
        self._mutex = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._totals: dict[str, float] = {}
        if label is None:
            self._add("")

    def observe(self, value: float, label_value: str = "") -> None:
        index = bisect.bisect_left(self._bounds, value)
        with self._mutex:
            if label_value not in self._counts:
                self._add(label_value)
            self._counts[label_value][index] += 1
            self._totals[label_value] += value

    def samples(self) -> tuple[Sample, ...]:
        with self._mutex:
            known = [(name, list(counts), self._totals[name]) for name, counts in sorted(self._counts.items())]
        return tuple(
            Sample(self._distribution(counts, total), {} if self._label is None else {self._label: name})
            for name, counts, total in known
        )

    def _add(self, label_value: str) -> None:
        self._counts[label_value] = [0] * (len(self._bounds) + 1)
        self._totals[label_value] = 0.0

    def _distribution(self, counts: Sequence[int], total: float) -> Distribution:
        bounds = (*self._bounds, float("inf"))
        return Distribution(tuple(zip(bounds, accumulate(counts), strict=True)), total)


class Counts:
    """Numbers that only grow, by the value of their one label. Thread-safe."""

    def __init__(self, label: str, known: Sequence[str] = ()) -> None:
        self._label = label
        self._values = dict.fromkeys(known, 0.0)
        self._mutex = threading.Lock()

    def add(self, label_value: str, amount: float = 1.0) -> None:
        with self._mutex:
            self._values[label_value] = self._values.get(label_value, 0.0) + amount

    def value(self, label_value: str) -> float:
        with self._mutex:
            return self._values.get(label_value, 0.0)

    def samples(self) -> tuple[Sample, ...]:
        with self._mutex:
            known = sorted(self._values.items())
        return tuple(Sample(value, {self._label: name}) for name, value in known)
