"""All measures of a face from its evidence, and the fused quality."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamgate.config import FusionConfig
from streamgate.frames import MEASURE_NAMES, Evidence, Measure, Status
from streamgate.quality.calibration import Calibration, SigmoidMapping
from streamgate.quality.edge import measure_edge
from streamgate.quality.exposure import measure_exposure
from streamgate.quality.eyes import measure_eyes
from streamgate.quality.ifqa import measure_ifqa
from streamgate.quality.occlusion import measure_occlusion
from streamgate.quality.pose import measure_pitch, measure_roll, measure_yaw
from streamgate.quality.serfiq import measure_serfiq
from streamgate.quality.sharpness import measure_sharpness
from streamgate.quality.size import measure_size

_MAPPED: Mapping[str, Callable[[Evidence, SigmoidMapping], Measure]] = {
    "serfiq": measure_serfiq,
    "ifqa": measure_ifqa,
    "size": measure_size,
    "edge": measure_edge,
    "sharpness": measure_sharpness,
    "exposure": measure_exposure,
    "occlusion": measure_occlusion,
    "eyes": measure_eyes,
}
NO_CEILINGS: Mapping[str, float] = {}
_UNMAPPED: Mapping[str, Callable[[Evidence], Measure]] = {
    "yaw": measure_yaw,
    "pitch": measure_pitch,
    "roll": measure_roll,
}


def measure_all(evidence: Evidence, calibration: Calibration) -> dict[str, Measure]:
    """Every measure by name; those without weights or calibration say so instead of a figure."""
    return {name: _one(name, evidence, calibration) for name in MEASURE_NAMES}


def _one(name: str, evidence: Evidence, calibration: Calibration) -> Measure:
    if name in calibration.absent:
        return Measure.missing(calibration.absent[name])
    if name in evidence.failed:
        return Measure.missing(Status.ERROR)
    if name in _UNMAPPED:
        return _UNMAPPED[name](evidence)
    return _MAPPED[name](evidence, calibration.mappings[name])


@dataclass(frozen=True, slots=True)
class Fusion:
    """Weighted geometric mean of the scalars of `names` (DESIGN 4.4), 0..100."""

    names: tuple[str, ...]
    weights: Mapping[str, float]

    @classmethod
    def of(cls, config: FusionConfig, names: tuple[str, ...]) -> Fusion:
        return cls(names, {name: getattr(config, name) for name in names})

    def quality(self, measures: Mapping[str, Measure]) -> float | None:
        """None unless every measure of the set is ok."""
        if any(measures[name].status is not Status.OK for name in self.names):
            return None
        return self._mean(measures, NO_CEILINGS)

    def bound(self, measures: Mapping[str, Measure], ceilings: Mapping[str, float] = NO_CEILINGS) -> float:
        """The most `quality` can become: what is missing counts as its ceiling, or 100; an error bounds it to 0."""
        if any(measures[name].status is Status.ERROR for name in self.names):
            return 0.0
        return self._mean(measures, ceilings)

    def _mean(self, measures: Mapping[str, Measure], ceilings: Mapping[str, float]) -> float:
        total = weight_sum = 0.0
        for name in self.names:
            weight = self.weights[name]
            scalar = measures[name].scalar
            # Floored at 1 so that one hopeless scalar lowers the mean instead of erasing all else.
            total += weight * math.log(max(1.0, ceilings.get(name, 100.0) if scalar is None else scalar))
            weight_sum += weight
        return math.exp(total / weight_sum) if weight_sum else 0.0
