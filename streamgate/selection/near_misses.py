"""Collects the faces of a track that came closest to passing; the report shows them for a track that keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamgate.frames import Array, Picture
from streamgate.tracks import Candidate, NearMiss

APART_S = 1.0
"""Minimum number of seconds between two near misses of a track, because adjacent frames look the same."""

MakePicture = Callable[[Candidate, Picture], Array | None]


def distance_from_passing(candidate: Candidate) -> tuple[int, float, float]:
    """Sort key of candidates that did not pass: fewest reasons first, then the smallest shortfall, then quality."""
    return (len(candidate.gate.reasons), candidate.gate.shortfall, -(candidate.quality or 0.0))


class NearMisses:
    """Keeps the `count` rejected faces of a track that came closest to passing, at least `APART_S` apart.

    Faces whose values are final are offered in order of time, in batches; at most one picture is cut per batch.
    """

    def __init__(self, count: int, make_picture: MakePicture) -> None:
        self._count = count
        self._make_picture = make_picture
        self._found: list[NearMiss] = []

    def offer(self, settled: Sequence[tuple[Candidate, Picture]]) -> None:
        """Consider faces whose values are final, each with a picture that holds its pixels."""
        missed = [pair for pair in settled if pair[0].gate.reasons] if self._count else []
        if not missed:
            return
        candidate, picture = min(missed, key=lambda pair: _order(pair[0]))
        beaten = [one for one in self._found if abs(one.candidate.pts_seconds - candidate.pts_seconds) < APART_S]
        if not beaten and len(self._found) == self._count:
            beaten = [max(self._found, key=lambda one: _order(one.candidate))]
        if any(_order(one.candidate) <= _order(candidate) for one in beaten):
            return
        image = self._make_picture(candidate, picture)
        if image is not None:
            kept = [one for one in self._found if all(one is not other for other in beaten)]
            self._found = [*kept, NearMiss(candidate, image)]

    def finish(self) -> list[NearMiss]:
        """The near misses; the face that came closest to passing is first."""
        return sorted(self._found, key=lambda one: _order(one.candidate))


def _order(candidate: Candidate) -> tuple[int, float, float, float]:
    return (*distance_from_passing(candidate), candidate.pts_seconds)
