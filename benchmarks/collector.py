"""A sink that holds what a run says about one source in memory, as the figures that benchmarks compare."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from regret import Pick, Scored


@dataclass(frozen=True, slots=True)
class Ended:
    """A track's end: its time, how many faces were seen and scored, and why nothing was kept."""

    track_id: int
    first_pts: float
    last_pts: float
    frames_seen: int
    frames_scored: int
    reasons: tuple[str, ...]


class Collector:
    """The sink and its only writer, for one source a run."""

    def __init__(self) -> None:
        self.evaluated_faces: dict[int, list[Scored]] = {}
        self.picks: list[Pick] = []
        self.ended: list[Ended] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def open_source(self, source: Any) -> Collector:
        return self

    def evaluated(self, candidate: Any) -> None:
        self.evaluated_faces.setdefault(candidate.track_id, []).append(scored(candidate))

    def track(self, ended: Any) -> None:
        info = ended.track
        self.ended.append(
            Ended(
                info.track_id, info.first_pts, info.last_pts, info.frames_seen, info.frames_scored,
                tuple(ended.reasons),
            )
        )  # fmt: skip
        for shot in ended.shots:
            if shot.rank == 1 and shot.gate.passed:
                self.picks.append(Pick(info.track_id, shot.pts_seconds, _rounded(shot.face.box), shot.quality))

    def commit(self, result: Any) -> None:
        pass

    def discard(self) -> None:
        pass

    def finish(self, results: Any, timing: Any) -> None:
        pass


def scored(candidate: Any) -> Scored:
    """A candidate's figures without its pixels."""
    return Scored(
        candidate.pts_seconds,
        _rounded(candidate.face.box),
        tuple(_rounded(point) for point in candidate.face.landmarks),
        candidate.quality,
        candidate.gate.passed,
        tuple(candidate.gate.reasons),
        {name: one.scalar for name, one in candidate.measures.items() if one.scalar is not None},
    )


def _rounded(values: Any) -> tuple[float, ...]:
    return tuple(round(float(one), 2) for one in values)
