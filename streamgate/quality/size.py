"""size: enough pixels on the face."""

from __future__ import annotations

from streamgate.frames import Evidence, Measure, Status
from streamgate.quality.calibration import SigmoidMapping


def measure_size(evidence: Evidence, mapping: SigmoidMapping) -> Measure:
    """Raw: distance between the eyes in source pixels."""
    if evidence.inter_eye is None:
        return Measure.missing(Status.NOT_SCORED)
    return Measure.ok(evidence.inter_eye, mapping.scalar(evidence.inter_eye))
