"""Evaluation of a face: measures, gate and quality. Measures of recognisability and geometry reject faces; measures of
image quality rank them (design.md 4.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from streamgate.config import Config
from streamgate.faces import Evidence, Face, GateResult, Measure, Status
from streamgate.measures import MeasureSpec
from streamgate.networks.alignment import ffhq_side
from streamgate.scoring.calibration import Calibration, calibration_id, measure_set, recorded_measures
from streamgate.tracks import Candidate

SMALL = "small"
"""The reason for rejecting a face with too few pixels for the measure `size` or for `output.max_upscale`."""

LOW_QUALITY = "low_quality"
"""The reason for rejecting a face whose quality is below `keep.min_quality`."""

TURNED = 35.0
"""Degrees of yaw or pitch beyond which an eye or half of the mouth is hidden."""

_NO_CEILINGS: Mapping[str, float] = {}
_NOT_SCORED = Measure.missing(Status.NOT_SCORED)
_FAILED = Measure.missing(Status.ERROR)


class Evaluator:
    """Evaluates faces under one configuration and calibration. Thread-safe, because it does not change after
    construction.

    Attributes:
        names: the run's measure set, i.e. the measures in use that have weights and a calibration.
        calibration_id: qualities are comparable only if they have the same id.
    """

    def __init__(self, config: Config, calibration: Calibration) -> None:
        self.calibration = calibration
        self.names = measure_set(config, calibration)
        self.calibration_id = calibration_id(config, calibration)
        specs = recorded_measures(config)
        here = [spec for spec in specs if spec.name in self.names]
        self._absent = {name: Measure.missing(status) for name, status in calibration.absent.items()}
        self._specs = [
            (spec, None if spec.name in calibration.absent else calibration.scale_of(spec)) for spec in specs
        ]
        self._relative = [(spec, spec.reference) for spec in here if spec.reference is not None]
        self._limits = [
            (spec, limit, config.measures[spec.name].limit(limit.key)) for spec in here for limit in spec.limits
        ]
        self._weights = {name: config.measures[name].weight for name in self.names}
        self._min_quality = config.keep.min_quality
        output = config.output
        # Side of the smallest FFHQ square that `output.max_upscale` allows; 0.0 if any size is allowed.
        self._smallest_square = (
            output.size / output.max_upscale if output.upscale and output.max_upscale and "size" in self.names else 0.0
        )
        # On a turned head, an eye or half of the mouth is hidden, so the expression network's reasons do not count.
        # If turned heads are wanted, the reasons of other networks trained on frontal faces do not count either.
        everyone = config.keep.poses == "all"
        lenient = [spec for spec in here if spec.frontal and (everyone or spec.source == "expression")]
        self._frontal_reasons = [reason for spec in lenient for reason in spec.reasons]

    @property
    def can_rank(self) -> bool:
        """Whether any measure of the set has a weight; if not, faces have no quality."""
        return any(self._weights.values())

    def evaluate(self, candidate: Candidate, width: int, height: int) -> None:
        """Set the measures, quality and gate of a face in an upright frame of `width` x `height` source pixels."""
        candidate.evidence.values.update(self._usual(candidate))
        candidate.measures = self.measures(candidate.evidence)
        candidate.quality = self.quality(candidate.measures)
        if candidate.spoiled:
            candidate.gate = GateResult(False, (candidate.spoiled,), 1.0)
        else:
            candidate.gate = self.gate(candidate.face, candidate.evidence, candidate.measures, width, height)

    def follows_reference(self, candidate: Candidate) -> bool:
        """Whether an evaluated face was judged with the current reference values of its track's person."""
        return self._usual(candidate).items() <= candidate.evidence.values.items()

    def _usual(self, candidate: Candidate) -> dict[str, float]:
        """The current reference values of the face's measures, by the name under which the evidence stores them."""
        usual = {
            reference.evidence: candidate.usual.get(spec.name, reference.population)
            for spec, reference in self._relative
            if spec.raw_of(candidate.evidence) is not None
        }
        return {name: value for name, value in usual.items() if value is not None}

    def measures(self, evidence: Evidence) -> dict[str, Measure]:
        """All recorded measures by name; measures that are not available have a status instead of a value."""
        found: dict[str, Measure] = {}
        for spec, scale in self._specs:
            if scale is None:
                found[spec.name] = self._without_scale(spec, evidence)
            elif spec.name in evidence.failed:
                found[spec.name] = _FAILED
            else:
                raw = spec.raw_of(evidence)
                if raw is None:
                    found[spec.name] = _NOT_SCORED
                else:
                    found[spec.name] = Measure.ok(raw, scale(spec.compared(raw, evidence)))
        return found

    def _without_scale(self, spec: MeasureSpec, evidence: Evidence) -> Measure:
        """The value of a measure without a scalar; it has a raw value if its network ran and only the calibration is
        missing."""
        absent = self._absent[spec.name]
        raw = spec.raw_of(evidence) if absent.status is Status.UNCALIBRATED else None
        return absent if raw is None or not math.isfinite(raw) else Measure(raw, None, Status.UNCALIBRATED)

    def guessed(self, face: Face, evidence: Evidence, measures: Mapping[str, Measure]) -> dict[str, Measure]:
        """`measures`, with estimates for measures of the set that are not scored yet, if an estimate is possible."""
        found = dict(measures)
        for spec, scale in self._specs:
            known = found[spec.name]
            if spec.guess and scale and known.status is Status.NOT_SCORED and spec.name in self.names:
                raw = spec.guess(face, evidence)
                if raw is not None:
                    found[spec.name] = Measure.ok(raw, scale(raw))
        return found

    def gate(
        self, face: Face, evidence: Evidence, measures: Mapping[str, Measure], width: int, height: int
    ) -> GateResult:
        """Whether a face passes: every measure of the set is ok and within its limits.

        May be called before all measures are scored. A measure that is not scored yet gives no reason, so a result with
        reasons is final, but a result without reasons is not a pass until all measures are scored.
        """
        found: dict[str, float] = {}
        for spec, limit, value in self._limits:
            measure = measures[spec.name]
            given: float | None
            if limit.of == "scalar":
                given = measure.scalar
            elif limit.of == "raw":
                given = measure.raw if measure.raw is None or spec.better != "near zero" else abs(measure.raw)
            else:
                given = limit.of(face, evidence)
            if given is None:
                continue
            excess = limit.excess(given, value if limit.at is None else limit.at(value, evidence, width, height))
            if excess is not None:
                found[limit.choose(evidence) if limit.choose else next(iter(limit.reasons))] = excess
        eyes = measures["size"].raw
        # The square is at least four eye distances wide; for most faces, this check avoids computing the square.
        if SMALL not in found and eyes is not None and 4 * eyes < self._smallest_square + 1:
            square = _square(face)
            if square < self._smallest_square:
                found[SMALL] = 1.0 - square / self._smallest_square
        if self._frontal_reasons and evidence.pose is not None and is_turned(evidence.pose.yaw, evidence.pose.pitch):
            for reason in self._frontal_reasons:
                found.pop(reason, None)
        complete = all(measures[name].status is Status.OK for name in self.names)
        if complete and self._min_quality:
            quality = self._mean(measures, _NO_CEILINGS)
            if quality < self._min_quality:
                found[LOW_QUALITY] = 1.0 - quality / self._min_quality
        return GateResult(complete and not found, tuple(found), max(found.values(), default=0.0))

    def quality(self, measures: Mapping[str, Measure]) -> float | None:
        """Weighted geometric mean of the scalars, 0..100; None unless every measure of the set is ok."""
        if any(measures[name].status is not Status.OK for name in self.names):
            return None
        return self._mean(measures, _NO_CEILINGS)

    def bound(self, measures: Mapping[str, Measure], ceilings: Mapping[str, float] = _NO_CEILINGS) -> float:
        """Upper bound of `quality`: a missing scalar counts as its ceiling or as 100; 0 if a measure failed."""
        if any(measures[name].status is Status.ERROR for name in self.names):
            return 0.0
        return self._mean(measures, ceilings)

    def _mean(self, measures: Mapping[str, Measure], ceilings: Mapping[str, float]) -> float:
        total = weight_sum = 0.0
        for name, weight in self._weights.items():
            scalar = measures[name].scalar
            # The minimum of 1 ensures that a single scalar near 0 lowers the mean instead of making it 0.
            total += weight * math.log(max(1.0, ceilings.get(name, 100.0) if scalar is None else scalar))
            weight_sum += weight
        return math.exp(total / weight_sum) if weight_sum else 0.0


def _square(face: Face) -> float:
    """Side of the face's FFHQ square in source pixels; 0.0 if its landmarks define no square."""
    try:
        return ffhq_side(face.landmarks)
    except ValueError:
        return 0.0


def is_turned(yaw: float, pitch: float) -> bool:
    """Whether a head (angles in degrees) is turned further than networks trained on frontal faces can handle."""
    return max(abs(yaw), abs(pitch)) > TURNED
