"""Faces with all their evidence as a fit takes them, and presets as fusions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamgate.config import Config
from streamgate.frames import Evidence
from streamgate.measures import MeasureSpec
from streamgate.scoring.calibration import Calibration
from streamgate.tuning.fitting import Fusion


def value_of(spec: MeasureSpec, evidence: Evidence, calibration: Calibration) -> float | None:
    """What a fit takes of a measure, larger is better; None where there is no raw value."""
    raw = spec.raw_of(evidence)
    if raw is None or spec.name in evidence.failed:
        return None
    if spec.name not in calibration.mappings:
        # A fixed mapping: taken as its logit, with place 0 and width 1.
        return logit(calibration.scale_of(spec)(raw))
    return spec.upward(spec.compared(raw, evidence))


def logit(scalar: float) -> float:
    """Where a scalar 0..100 lies on the axis that the sigmoid takes."""
    share = min(0.999, max(0.001, scalar / 100))
    return float(np.log(share / (1 - share)))


def fusion_of(
    weights: Sequence[float], specs: Sequence[MeasureSpec], calibration: Calibration, movable: Sequence[bool]
) -> Fusion:
    """Weights and the calibration's mappings of some measures, in `value_of`'s terms."""
    mappings = [calibration.mappings.get(spec.name) for spec in specs]
    indexes = [
        0.0 if mapping is None else mapping.x0 if spec.better == "higher" else -mapping.x0
        for mapping, spec in zip(mappings, specs, strict=True)
    ]
    widths = [1.0 if mapping is None else mapping.w for mapping in mappings]
    return Fusion(np.array(weights, float), np.array(indexes), np.array(widths), np.array(movable, bool))


def of_preset(config: Config, specs: Sequence[MeasureSpec], calibration: Calibration) -> Fusion:
    """What a configuration says; movable is what it may set."""
    tables = [config.measures[spec.name] for spec in specs]
    return fusion_of(
        [table.weight for table in tables], specs, calibration, [table.mapping is not None for table in tables]
    )
