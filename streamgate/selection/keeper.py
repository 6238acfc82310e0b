"""Keeps the best shots of a track: the top K candidates that pass and are far enough apart in time (docs/design.md
4.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streamgate.config_sections import KeepConfig, SmoothingConfig
from streamgate.faces import GateResult
from streamgate.frames import Array, Picture
from streamgate.scoring.evaluator import LOW_QUALITY
from streamgate.selection.duplicates import Appearance, are_duplicates
from streamgate.selection.poses import Bin, bin_name, pose_bin
from streamgate.selection.smoothing import QualityHistory
from streamgate.tracks import Candidate

SPARE = 2
"""Number of ranks beyond K that are remembered. A later candidate may replace one of the best K and thereby make room
for another candidate, and some of the best K may fail when they are evaluated again at the end of the track."""

LARGE_REGION = 1 << 20
"""A region with more bytes than this is replaced with the final crop, which is smaller, before the track ends."""

LAYERS = 3
"""Number of layers that are remembered once there are many candidates that exclude each other (see `_below_layers`)."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A kept candidate with its rank and the name of the pose bin for which it was kept."""

    candidate: Candidate
    rank: int
    quality_smoothed: float | None
    quality_context: float | None
    pose_bin: str | None = None


MakeCrop = Callable[[Candidate, Picture], Array]


class Keeper:
    """Takes the scored candidates of one track and remembers those that may still be kept.

    The best K candidates that differ in time and appearance are kept; with pose bins, the best K of each bin.

    Memory does not grow with the track. A candidate is dropped as soon as enough better candidates, far enough apart in
    time, are known. The history drops entries that are too far in time from every remembered candidate. At the end, the
    pictures to keep are cut from the regions with `make_crop`. From a large region, the picture is cut earlier, as soon
    as the candidate's smoothing window is over; most candidates are dropped before that.
    """

    def __init__(self, keep: KeepConfig, smoothing: SmoothingConfig, make_crop: MakeCrop) -> None:
        self._keep = keep
        self._make_crop = make_crop
        self._regions: dict[int, Picture] = {}
        self._reach = smoothing.long_s / 2
        self._history = QualityHistory(smoothing.short_s, smoothing.long_s)
        self._binned = keep.poses == "all"
        self._pools: dict[Bin | None, list[Candidate]] = {}
        self._runner_up: Candidate | None = None

    def note(self, candidate: Candidate) -> None:
        """Add a scored candidate to the history, so that it counts in the smoothed quality of its neighbours."""
        if candidate.quality is not None:
            self._history.add(candidate.pts_seconds, candidate.quality)

    def offer(self, candidate: Candidate, region: Picture) -> None:
        """Consider a candidate that was passed to `note`, as were its neighbours; `region` holds the candidate's
        pixels."""
        if candidate.gate.passed and candidate.quality is not None:
            pool = self._pools.setdefault(self._bin(candidate), [])
            if candidate not in pool:
                pool.append(candidate)
                self._regions[id(candidate)] = region
        elif self._keep.fallback == "best" and not any(self._pools.values()):
            self._consider_runner_up(candidate, region)

    def threshold(self, candidate: Candidate | None = None) -> float:
        """The smoothed quality that a new candidate has to exceed to be kept; 0 while a rank is free.

        With pose bins, this is the threshold of the candidate's bin, or 0 while the pose is unknown.
        """
        if self._binned and (candidate is None or candidate.evidence.pose is None):
            return 0.0
        pool = self._pools.get(None if candidate is None else self._bin(candidate), [])
        ranked = self._picks(pool, self._keep.top_k)
        return self._smoothed(ranked[-1]) if len(ranked) == self._keep.top_k else 0.0

    def prune(self, now: float) -> None:
        """Drop candidates that can no longer be kept, given that all candidates before `now` have been offered."""
        for pool in self._pools.values():
            self._prune(pool, now)
        watched = [candidate.pts_seconds for pool in self._pools.values() for candidate in pool]
        self._history.forget(now - 2 * self._reach, watched, self._reach)

    def _prune(self, pool: list[Candidate], now: float) -> None:
        # Recent candidates stay, because their smoothed quality may still change.
        settled = [one for one in pool if now - one.pts_seconds > self._reach]
        needed = self._keep.top_k + SPARE
        chosen = self._picks(settled, needed)
        gone: list[Candidate] = []
        if len(chosen) == needed:
            floor = self._order(chosen[-1])
            gone = [candidate for candidate in settled if self._order(candidate) > floor]
        elif len(settled) > 2 * LAYERS * needed:
            gone = self._below_layers(settled, needed)
        for candidate in gone:
            self._forget(candidate)
            pool.remove(candidate)
        for candidate in settled:
            region = self._regions.get(id(candidate))
            if region is not None and region.nbytes > LARGE_REGION:
                self._cut(candidate)

    def _below_layers(self, settled: list[Candidate], needed: int) -> list[Candidate]:
        """Candidates below the third layer; a layer consists of the candidates that would be picked without the layers
        above."""
        left = settled
        for _ in range(LAYERS):
            chosen = self._picks(left, needed)
            left = [one for one in left if all(one is not other for other in chosen)]
        return left

    def drop_after(self, pts_seconds: float) -> None:
        """Drop candidates later than `pts_seconds`, because they show another person."""
        for pool in self._pools.values():
            for candidate in [one for one in pool if one.pts_seconds > pts_seconds]:
                self._forget(candidate)
                pool.remove(candidate)
        if self._runner_up is not None and self._runner_up.pts_seconds > pts_seconds:
            self._forget(self._runner_up)
            self._runner_up = None
        self._history.drop_after(pts_seconds)

    def holds(self, candidate: Candidate) -> bool:
        """Whether the candidate may still be kept."""
        return any(candidate in pool for pool in self._pools.values())

    @property
    def contenders(self) -> list[Candidate]:
        """All candidates that may still be kept."""
        found = [candidate for pool in self._pools.values() for candidate in pool]
        return found if self._runner_up is None else [*found, self._runner_up]

    def settle(self, reevaluate: Callable[[Candidate], None]) -> None:
        """Evaluate the finalists again with `reevaluate`; those that no longer pass are dropped."""
        for pool in self._pools.values():
            for candidate in self._picks(pool, self._keep.top_k + SPARE):
                reevaluate(candidate)
                self.note(candidate)
                if not candidate.gate.passed or candidate.quality is None:
                    self._forget(candidate)
                    pool.remove(candidate)

    def close(self) -> None:
        """End the track: reject faces whose smoothed quality is below `keep.min_quality`."""
        least = self._keep.min_quality
        for pool in self._pools.values():
            for candidate in [one for one in pool if self._smoothed(one) < least]:
                candidate.gate = GateResult(False, (LOW_QUALITY,), 1.0 - self._smoothed(candidate) / least)
                self._forget(candidate)
                pool.remove(candidate)

    def finish(self) -> list[Ranked]:
        """The kept candidates in order of rank, from 1.

        If none has passed, one that did not pass is kept if `keep.fallback` is "best".
        """
        chosen: list[tuple[Candidate, Bin | None]] = []
        left = [(candidate, bin_key) for bin_key, pool in self._pools.items() for candidate in pool]
        for candidate, bin_key in sorted(left, key=lambda pair: self._order(pair[0])):
            beside = [other for other, bin_ in chosen if bin_ == bin_key]
            # A face near the edge of a bin may have a near-duplicate in the next bin.
            new = self._is_new(candidate, [other for other, _ in chosen])
            if new and len(beside) < self._keep.top_k and self._is_apart(candidate, beside):
                chosen.append((candidate, bin_key))
        if not chosen and self._runner_up is not None:
            chosen = [(self._runner_up, None)]
        for candidate, _ in chosen:
            self._cut(candidate)
        return [
            Ranked(
                candidate,
                rank,
                None if candidate.quality is None else self._smoothed(candidate),
                None
                if candidate.quality is None
                else self._history.context(candidate.pts_seconds, candidate.quality),
                None if bin_key is None else bin_name(bin_key, self._keep),
            )
            for rank, (candidate, bin_key) in enumerate(chosen, 1)
        ]

    def _bin(self, candidate: Candidate) -> Bin | None:
        pose = candidate.evidence.pose
        return None if pose is None or not self._binned else pose_bin(pose, self._keep)

    def _picks(self, pool: Iterable[Candidate], count: int) -> list[Candidate]:
        """Pick candidates greedily in rank order: each must be far enough in time from those already picked, and must
        not be a near-duplicate of any of them."""
        chosen: list[Candidate] = []
        for candidate in sorted(pool, key=self._order):
            if len(chosen) == count:
                break
            if self._is_apart(candidate, chosen) and self._is_new(candidate, chosen):
                chosen.append(candidate)
        return chosen

    def _is_apart(self, candidate: Candidate, chosen: Iterable[Candidate]) -> bool:
        gap = self._keep.min_gap_seconds
        return all(abs(candidate.pts_seconds - other.pts_seconds) >= gap for other in chosen)

    def _is_new(self, candidate: Candidate, chosen: Iterable[Candidate]) -> bool:
        return not any(are_duplicates(_appearance(candidate), _appearance(other), self._keep) for other in chosen)

    def _order(self, candidate: Candidate) -> tuple[float, float, float]:
        assert candidate.quality is not None
        return (-self._smoothed(candidate), -candidate.quality, candidate.pts_seconds)

    def _smoothed(self, candidate: Candidate) -> float:
        assert candidate.quality is not None
        return self._history.smoothed(candidate.pts_seconds, candidate.quality)

    def _consider_runner_up(self, candidate: Candidate, region: Picture) -> None:
        """Keep the least bad face: the one with the fewest reasons against it, then with the best quality."""

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
            candidate.image = self._make_crop(candidate, region)

    def _forget(self, candidate: Candidate) -> None:
        self._regions.pop(id(candidate), None)
        candidate.image = candidate.arcface = None


def _appearance(candidate: Candidate) -> Appearance:
    return Appearance(candidate.phash, candidate.evidence.embedding, candidate.face.inter_eye)
