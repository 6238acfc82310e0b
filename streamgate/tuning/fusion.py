"""Converts evidence and presets to the values that a fit uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamgate.config import Config
from streamgate.faces import Evidence
from streamgate.measures import MeasureSpec
from streamgate.scoring.calibration import Calibration
from streamgate.tuning.fitting import Fusion


def value_of(spec: MeasureSpec, evidence: Evidence, calibration: Calibration) -> float | None:
    """The value of a measure in a fit, where larger is better; None if there is no raw value."""
    raw = spec.raw_of(evidence)
    if raw is None or spec.name in evidence.failed:
        return None
    if spec.name not in calibration.mappings:
        # The mapping is fixed, so use the logit of the scalar as the value, with x0 = 0 and w = 1.
        return logit(calibration.scale_of(spec)(raw))
    return spec.upward(spec.compared(raw, evidence))


def logit(scalar: float) -> float:
    """The input for which 100 * sigmoid gives the scalar (0..100)."""
    share = min(0.999, max(0.001, scalar / 100))
    return float(np.log(share / (1 - share)))


def fusion_of(
    weights: Sequence[float], specs: Sequence[MeasureSpec], calibration: Calibration, movable: Sequence[bool]
) -> Fusion:
    """The weights and the calibrated mappings of some measures, for values from `value_of`."""
    mappings = [calibration.mappings.get(spec.name) for spec in specs]
    indexes = [
        0.0 if mapping is None else mapping.x0 if spec.better == "higher" else -mapping.x0
        for mapping, spec in zip(mappings, specs, strict=True)
    ]
    widths = [1.0 if mapping is None else mapping.w for mapping in mappings]
    return Fusion(np.array(weights, float), np.array(indexes), np.array(widths), np.array(movable, bool))


def of_preset(config: Config, specs: Sequence[MeasureSpec], calibration: Calibration) -> Fusion:
    """The fusion of a configuration. Mappings that a configuration may set are movable."""
    tables = [config.measures[spec.name] for spec in specs]
    return fusion_of(
        [table.weight for table in tables], specs, calibration, [table.mapping is not None for table in tables]
    )
