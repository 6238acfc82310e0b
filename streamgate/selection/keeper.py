"""The best shots of a track: top K of the candidates that pass, apart in time (DESIGN 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streamgate.config import KeepConfig, SmoothingConfig
from streamgate.frames import Array, Candidate, Picture
from streamgate.selection.smoothing import QualityHistory

SPARE = 2
"""Ranks beyond K that are remembered, since a later candidate can push one out and let another back in."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A kept candidate with its place."""

    candidate: Candidate
    rank: int
    quality_smoothed: float | None
    quality_context: float | None


MakeCrop = Callable[[Candidate, Picture], Array]


class Keeper:
    """Takes the scored candidates of one track and remembers the ones that can still win.

    Memory does not grow with the track: a candidate leaves as soon as enough better ones, apart in time, are
    known, and the history forgets what no remembered candidate can see. The picture to be kept is cut out of
    the region with `make_crop` only once a candidate has outlived its smoothing window: most never do.
    """

    def __init__(self, keep: KeepConfig, smoothing: SmoothingConfig, make_crop: MakeCrop) -> None:
        self._keep = keep
        self._make_crop = make_crop
        self._regions: dict[int, Picture] = {}
        self._reach = smoothing.long_s / 2
        self._history = QualityHistory(smoothing.short_s, smoothing.long_s)
        self._pool: list[Candidate] = []
        self._runner_up: Candidate | None = None

    def note(self, candidate: Candidate) -> None:
        """A candidate was scored: it counts for its neighbours' smoothing from now on."""
        if candidate.quality is not None:
            self._history.add(candidate.pts_seconds, candidate.quality)

    def offer(self, candidate: Candidate, region: Picture) -> None:
        """Consider a noted candidate whose neighbours have been noted too; `region` holds its pixels."""
        if candidate.gate.passed and candidate.quality is not None:
            if candidate not in self._pool:
                self._pool.append(candidate)
                self._regions[id(candidate)] = region
        elif self._keep.fallback == "best" and not self._pool:
            self._consider_runner_up(candidate, region)

    def bar(self) -> float:
        """The smoothed quality that a further candidate has to beat to be kept; 0 while a rank is free."""
        ranked = self._picks(self._pool, self._keep.top_k)
        return self._smoothed(ranked[-1]) if len(ranked) == self._keep.top_k else 0.0

    def prune(self, now: float) -> None:
        """Forget what can no longer matter when all candidates before `now` have been offered."""
        # Recent ones stay: their smoothed quality may still change.
        settled = [one for one in self._pool if now - one.pts_seconds > self._reach]
        needed = 1 if self._keep.top_k == 1 else self._keep.top_k + SPARE
        chosen = self._picks(settled, needed)
        if len(chosen) == needed:
            floor = self._order(chosen[-1])
            for candidate in settled:
                if self._order(candidate) > floor:
                    self._forget(candidate)
                    self._pool.remove(candidate)
        for candidate in settled:
            if id(candidate) in self._regions:
                self._cut(candidate)
        watched = [candidate.pts_seconds for candidate in self._pool]
        self._history.forget(now - 2 * self._reach, watched, self._reach)

    def finish(self) -> list[Ranked]:
        """The kept candidates by rank, from 1; with fallback "best" one that did not pass, if none did."""
        chosen = self._picks(self._pool, self._keep.top_k)
        if not chosen and self._runner_up is not None:
            chosen = [self._runner_up]
        for candidate in chosen:
            self._cut(candidate)
        return [
            Ranked(
                candidate,
                place,
                None if candidate.quality is None else self._smoothed(candidate),
                None
                if candidate.quality is None
                else self._history.context(candidate.pts_seconds, candidate.quality),
            )
            for place, candidate in enumerate(chosen, 1)
        ]

    def _picks(self, pool: Iterable[Candidate], count: int) -> list[Candidate]:
        """Greedy by rank order: the best, then the best that lies far enough from all chosen before."""
        chosen: list[Candidate] = []
        for candidate in sorted(pool, key=self._order):
            if len(chosen) == count:
                break
            gap = self._keep.min_gap_seconds
            if all(abs(candidate.pts_seconds - other.pts_seconds) >= gap for other in chosen):
                chosen.append(candidate)
        return chosen

    def _order(self, candidate: Candidate) -> tuple[float, float, float]:
        assert candidate.quality is not None
        return (-self._smoothed(candidate), -candidate.quality, candidate.pts_seconds)

    def _smoothed(self, candidate: Candidate) -> float:
        assert candidate.quality is not None
        return self._history.smoothed(candidate.pts_seconds, candidate.quality)

    def _consider_runner_up(self, candidate: Candidate, region: Picture) -> None:
        """Fewest reasons against it first, then quality: what a person would call the least bad face."""

        def badness(one: Candidate) -> tuple[int, float, float]:
            return (len(one.gate.reasons), -(one.quality or 0.0), one.pts_seconds)

        if self._runner_up is None or badness(candidate) < badness(self._runner_up):
            if self._runner_up is not None:
                self._forget(self._runner_up)
            self._runner_up = candidate
            self._regions[id(candidate)] = region

    def _cut(self, candidate: Candidate) -> None:
        region = self._regions.pop(id(candidate), None)
        if region is not None:
            candidate.crop = self._make_crop(candidate, region)

    def _forget(self, candidate: Candidate) -> None:
        self._regions.pop(id(candidate), None)
        candidate.crop = candidate.arcface = None
