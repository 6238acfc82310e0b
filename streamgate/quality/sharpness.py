"""sharpness: fine structure that blur takes away."""

from __future__ import annotations

from streamgate.frames import Evidence, Measure, Status
from streamgate.quality.calibration import SigmoidMapping


def measure_sharpness(evidence: Evidence, mapping: SigmoidMapping) -> Measure:
    """Raw: variance of the Laplacian over the variance of luma, at 60 px between the eyes (DESIGN 4.3)."""
    if evidence.sharpness is None:
        return Measure.missing(Status.NOT_SCORED)
    return Measure.ok(evidence.sharpness, mapping.scalar(evidence.sharpness))
