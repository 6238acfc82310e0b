"""Stored faces under another configuration."""

from __future__ import annotations

from streamgate.frames import Candidate, GateResult, Status
from streamgate.measures.words import reason_words
from streamgate.tuning.settings import Tuning


class StoredJudge:
    """Judges stored faces of a source whose frames are `width` x `height` pixels."""

    def __init__(self, tuning: Tuning, width: int, height: int) -> None:
        self._judge = tuning.judge
        self._same_meaning = tuning.same_meaning
        self._size = width, height
        was, now = (config.measures["size"].limit("min") for config in (tuning.before, tuning.after))
        self._same_size_limit = was == now

    def judge(self, candidate: Candidate) -> None:
        """Judge a stored face again, in place.

        What means the same stays as it was written, to the last digit.
        """
        if candidate.corrupt:
            return
        was_small = "small" in candidate.gate.reasons
        if not self._same_meaning:
            candidate.measures = self._judge.measures(candidate.evidence)
            candidate.quality = self._judge.quality(candidate.measures)
        gate = self._judge.gate(candidate.face, candidate.evidence, candidate.measures, *self._size)
        if self._same_size_limit and was_small != ("small" in gate.reasons):
            # Pictures of a folder differ in size, and a share of theirs was the limit.
            reasons = set(gate.reasons) ^ {"small"}
            gate = GateResult(
                not reasons and all(candidate.measures[name].status is Status.OK for name in self._judge.names),
                tuple(reason for reason in reason_words() if reason in reasons),
                gate.shortfall,
            )
        candidate.gate = gate

    def promise(self, candidate: Candidate) -> float:
        """The quality that a face not scored in full could have at best, its turn guessed where it is not known."""
        guessed = self._judge.guessed(candidate.face, candidate.measures)
        face, evidence = candidate.face, candidate.evidence
        before = self._judge.gate(face, evidence, candidate.measures, *self._size).reasons
        if set(self._judge.gate(face, evidence, guessed, *self._size).reasons) - set(before):
            return 0.0
        return self._judge.bound(guessed)
