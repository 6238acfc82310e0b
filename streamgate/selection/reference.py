"""Reference values of a track's person, with which some measures compare a face."""

from __future__ import annotations

from collections import Counter

from streamgate.faces import Evidence
from streamgate.measures import MeasureSpec, known_measures
from streamgate.measures.spec import ReferenceSpec

_DECIMALS = 3


class TrackReference:
    """Percentiles of raw values over a track's evenly spaced faces, not over the faces that selection chose.

    Attributes:
        usual: the references so far, by measure; candidates that share this mapping are evaluated with them. A measure
            is missing while too few faces were seen.
    """

    def __init__(self) -> None:
        self.usual: dict[str, float] = {}
        # Counted by rounded value, so that memory does not grow with the track.
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
    """The smallest value that at least `percent` % of all values do not exceed (nearest rank)."""
    wanted = percent / 100 * seen.total()
    below = 0
    for value in sorted(seen):
        below += seen[value]
        if below >= wanted:
            return value
    return 0.0
