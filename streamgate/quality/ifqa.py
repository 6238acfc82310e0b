"""ifqa: does it look like a clean, real face? (DESIGN 4.2)"""

from __future__ import annotations

from streamgate.frames import Evidence, Measure, Status
from streamgate.quality.calibration import SigmoidMapping


def measure_ifqa(evidence: Evidence, mapping: SigmoidMapping) -> Measure:
    """Raw: realness 0..1, the mean of the discriminator's map."""
    if evidence.ifqa is None:
        return Measure.missing(Status.NOT_SCORED)
    return Measure.ok(evidence.ifqa, mapping.scalar(evidence.ifqa))
