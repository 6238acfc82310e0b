"""A configuration that `bestshot.py` tried, and its figures over all clips."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from cascade import Passed
from charts import Point
from regret import Pick, Scored, TrackResult, percentile, value
from yardstick import Yardstick


@dataclass(frozen=True, slots=True)
class Setup:
    """A configuration to try: the preset with `settings` on top, and these weights."""

    name: str
    settings: tuple[str, ...]
    models: str


@dataclass(slots=True)
class Tried:
    """A configuration with what came of it, by clip."""

    setup: Setup
    passed: list[Passed] = field(default_factory=list)
    results: dict[str, list[TrackResult]] = field(default_factory=dict)
    strays: dict[str, list[Pick]] = field(default_factory=dict)
    problem: str = ""
    kept: bool = False
    """Its figures are from an earlier run."""

    def tracks(self) -> list[TrackResult]:
        return [one for results in self.results.values() for one in results]

    def picked(self) -> list[TrackResult]:
        return [one for one in self.tracks() if one.regret is not None]

    def clip_regrets(self) -> dict[str, float]:
        """Mean regret of each clip in which something was picked."""
        found = {
            name: [one.regret for one in results if one.regret is not None] for name, results in self.results.items()
        }
        return {name: statistics.fmean(values) for name, values in found.items() if values}

    def mean_regret(self) -> float:
        """Over tracks."""
        return statistics.fmean(one.regret or 0.0 for one in self.picked()) if self.picked() else 0.0

    def interval(self) -> tuple[float, float]:
        """Where the mean over tracks lies with 95 %, by bootstrap over tracks: they are few."""
        values = np.array([one.regret for one in self.picked()])
        if not len(values):
            return 0.0, 0.0
        drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
        low, high = np.quantile(drawn, (0.025, 0.975))
        return float(low), float(high)

    def percentiles(self) -> list[float]:
        return [one.percentile for one in self.picked() if one.percentile is not None]

    def recall(self) -> float | None:
        """Per cent; None when no track counts."""
        counted = [one for one in self.tracks() if one.counts_for_recall]
        return 100.0 * sum(one.pick is not None for one in counted) / len(counted) if counted else None

    def cost(self) -> float:
        """Core-ms a second of video, decoding included."""
        return 1000 * sum(one.cpu for one in self.passed) / self._seconds()

    def beyond(self) -> float:
        """The same beyond decoding alone."""
        return 1000 * sum(one.cpu - one.decode_cpu for one in self.passed) / self._seconds()

    def runs(self, kind: str) -> float:
        """Network runs of a kind a second of video."""
        return sum(one.runs.get(kind, 0.0) for one in self.passed) / self._seconds()

    def point(self) -> Point:
        worst = max(self.clip_regrets().values(), default=0.0)
        return Point(self.setup.name, self.cost(), self.mean_regret(), worst, self.setup.name == "default")

    def summary(self) -> str:
        recall = self.recall()
        return (
            f"regret {self.mean_regret():.2f}, recall {'-' if recall is None else f'{recall:.1f} %'}, "
            f"{self.cost():.0f} core-ms a second of video"
        )

    def _seconds(self) -> float:
        return max(sum(one.seconds for one in self.passed), 1e-9)


def exhaustive(yardsticks: Mapping[str, Yardstick], results: Mapping[str, Sequence[TrackResult]], models: str) -> Tried:
    """What exhaustive mode itself keeps and costs, by the yardsticks; `results` name the tracks that can be kept."""
    tried = Tried(Setup("exhaustive", ("exhaustive=true",), models))
    for clip, stick in yardsticks.items():
        own = [one.own for one in results[clip]]
        picks = [Pick(one.track_id, one.own.pts, one.own.box, one.own.quality) for one in results[clip]]
        scored = sum(len(faces) for faces in stick.tracks.values())
        tried.passed.append(Passed(clip, stick.seconds, stick.cpu, 0.0, {}, scored, picks, [], []))
        tried.results[clip] = [
            replace(one, pick=pick, at=at, regret=one.own_regret, smoothed_regret=0.0,
                    percentile=_standing(stick.tracks[one.track_id], at, passing=False),
                    percentile_passing=_standing(stick.tracks[one.track_id], at, passing=True))
            for one, pick, at in zip(results[clip], picks, own, strict=True)
        ]  # fmt: skip
        tried.strays[clip] = []
    return tried


def _standing(faces: Sequence[Scored], at: Scored, *, passing: bool) -> float:
    return percentile(
        value(at), [value(one) for one in faces if one.quality is not None and (one.passed or not passing)]
    )
