"""Stored faces under another configuration."""

from __future__ import annotations

from streamgate.frames import Candidate, GateResult, Measure, Status
from streamgate.quality.gate import REASONS, GateRules
from streamgate.quality.measures import Fusion, measure_all
from streamgate.quality.pose import angle_scalar
from streamgate.quality.proxy import yaw_proxy
from streamgate.tuning.settings import Tuning


class Judge:
    """Measures, quality and gate of stored faces of a source whose frames are `width` x `height` pixels."""

    def __init__(self, tuning: Tuning, width: int, height: int) -> None:
        self._tuning = tuning
        self._names = tuning.run.measure_set
        self._rules = GateRules(tuning.after.gate, self._names)
        self._fusion = Fusion.of(tuning.after.fusion, self._names)
        self._size = width, height
        self._same_size_limit = tuning.before.gate.min_size == tuning.after.gate.min_size

    def judge(self, candidate: Candidate) -> None:
        """Judge a stored face anew, in place.

        What means the same stays as it was written, to the last digit.
        """
        was_small = "small" in candidate.gate.reasons
        if not self._tuning.same_meaning:
            candidate.measures = measure_all(candidate.evidence, self._tuning.calibration)
            candidate.quality = self._fusion.quality(candidate.measures)
        gate = self._rules.judge(candidate.face, candidate.evidence, candidate.measures, *self._size)
        if self._same_size_limit and was_small != ("small" in gate.reasons):
            # Pictures of a folder differ in size, and a share of theirs was the limit.
            reasons = set(gate.reasons) ^ {"small"}
            gate = GateResult(
                not reasons and all(candidate.measures[name].status is Status.OK for name in self._names),
                tuple(reason for reason in REASONS if reason in reasons),
                gate.shortfall,
            )
        candidate.gate = gate

    def promise(self, candidate: Candidate) -> float:
        """The quality that a face not scored in full could have at best, its turn guessed where it is not known."""
        known = dict(candidate.measures)
        if "yaw" in self._names and known["yaw"].status is Status.NOT_SCORED:
            turn = yaw_proxy(candidate.face)
            if abs(turn) > self._tuning.after.gate.max_yaw:
                return 0.0
            known["yaw"] = Measure.ok(turn, angle_scalar(turn))
        return self._fusion.bound(known)
