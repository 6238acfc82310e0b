"""occlusion: is something in front of the face?"""

from __future__ import annotations

from streamgate.frames import Evidence, Measure, Status
from streamgate.quality.calibration import SigmoidMapping


def measure_occlusion(evidence: Evidence, mapping: SigmoidMapping) -> Measure:
    """Raw: visible share of the face, 0..1."""
    if evidence.visible is None:
        return Measure.missing(Status.NOT_SCORED)
    return Measure.ok(evidence.visible, mapping.scalar(evidence.visible))
