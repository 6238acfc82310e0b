"""exposure: neither drowned in black nor burnt out."""

from __future__ import annotations

from streamgate.frames import Evidence, Measure, Status
from streamgate.quality.calibration import SigmoidMapping


def measure_exposure(evidence: Evidence, mapping: SigmoidMapping) -> Measure:
    """Raw: share of the face's luma in 40..220, 0..1."""
    if evidence.exposure is None:
        return Measure.missing(Status.NOT_SCORED)
    return Measure.ok(evidence.exposure, mapping.scalar(evidence.exposure))
