"""eyes: open or closed."""

from __future__ import annotations

from streamgate.frames import Evidence, Measure, Status
from streamgate.quality.calibration import SigmoidMapping


def measure_eyes(evidence: Evidence, mapping: SigmoidMapping) -> Measure:
    """Raw: probability that both eyes are open, 0..1."""
    if evidence.eyes_open is None:
        return Measure.missing(Status.NOT_SCORED)
    return Measure.ok(evidence.eyes_open, mapping.scalar(evidence.eyes_open))
