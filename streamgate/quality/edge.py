"""edge: is the whole face inside the picture?"""

from __future__ import annotations

from streamgate.frames import Evidence, Measure, Status
from streamgate.quality.calibration import SigmoidMapping


def measure_edge(evidence: Evidence, mapping: SigmoidMapping) -> Measure:
    """Raw: share of the box inside the picture, 0..1."""
    if evidence.inside is None:
        return Measure.missing(Status.NOT_SCORED)
    return Measure.ok(evidence.inside, mapping.scalar(evidence.inside))
