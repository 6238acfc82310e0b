"""Reference values of the person in a track, with which some measures compare a face."""

from __future__ import annotations

from collections import Counter

from streamgate.faces import Evidence
from streamgate.measures import MeasureSpec, known_measures
from streamgate.measures.spec import ReferenceSpec

_DECIMALS = 3


class TrackReference:
    """Percentiles of raw values over a track's evenly spaced faces. Selection does not influence which faces these are.

    Attributes:
        usual: the reference values so far, by measure; candidates that hold this mapping are evaluated with these
            values. A measure is missing until enough faces have been seen.
    """

    def __init__(self) -> None:
        self.usual: dict[str, float] = {}
        # Values are rounded and counted, so that memory does not grow with the track.
        self._seen: list[tuple[MeasureSpec, ReferenceSpec, Counter[float]]] = [
            (spec, spec.reference, Counter()) for spec in known_measures() if spec.reference is not None
        ]

    def add(self, evidence: Evidence) -> None:
        """Add one of the evenly spaced faces."""
        for spec, reference, seen in self._seen:
            raw = spec.raw_of(evidence)
            if raw is None:
                continue
            seen[round(raw, _DECIMALS)] += 1
            if seen.total() >= reference.faces:
                self.usual[spec.name] = max(reference.lowest, _percentile(seen, reference.percentile))


def _percentile(seen: Counter[float], percent: float) -> float:
    """The smallest value that is at least as large as `percent` % of all values (nearest rank)."""
    wanted = percent / 100 * seen.total()
    below = 0
    for value in sorted(seen):
        below += seen[value]
        if below >= wanted:
            return value
    return 0.0
