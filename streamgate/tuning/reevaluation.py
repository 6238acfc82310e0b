"""Evaluates stored faces with another configuration."""

from __future__ import annotations

from streamgate.faces import GateResult, Status
from streamgate.measures.vocabulary import reason_words
from streamgate.tracks import Candidate
from streamgate.tuning.settings import Tuning


def reevaluate(candidate: Candidate, tuning: Tuning, size: tuple[int, int]) -> None:
    """Evaluate a stored face again, in place. `size` is the width and height of the frames of its source in pixels.

    Values whose meaning has not changed stay exactly as they were stored.
    """
    if candidate.spoiled:
        return
    evaluator = tuning.evaluator
    was_small = "small" in candidate.gate.reasons
    if not tuning.same_meaning:
        candidate.measures = evaluator.measures(candidate.evidence)
        candidate.quality = evaluator.quality(candidate.measures)
    gate = evaluator.gate(candidate.face, candidate.evidence, candidate.measures, *size)
    before, after = (config.measures["size"].limit("min") for config in (tuning.before, tuning.after))
    if before == after and was_small != ("small" in gate.reasons):
        # Keep the old decision: the limit may be a share of the frame size, and pictures in a folder can have different
        # sizes.
        reasons = set(gate.reasons) ^ {"small"}
        gate = GateResult(
            not reasons and all(candidate.measures[name].status is Status.OK for name in evaluator.names),
            tuple(reason for reason in reason_words(tuning.after.measures.specs) if reason in reasons),
            gate.shortfall,
        )
    candidate.gate = gate


def settle(candidate: Candidate, tuning: Tuning, size: tuple[int, int]) -> None:
    """Evaluate a face that may be kept, in place, using the reference values of its whole track."""
    if not tuning.evaluator.follows_reference(candidate):
        tuning.evaluator.evaluate(candidate, *size)


def potential(candidate: Candidate, tuning: Tuning, size: tuple[int, int]) -> float:
    """Upper bound of the quality of a face that was not fully scored; an unknown pose is estimated."""
    evaluator, face, evidence = tuning.evaluator, candidate.face, candidate.evidence
    guessed = evaluator.guessed(face, evidence, candidate.measures)
    before = evaluator.gate(face, evidence, candidate.measures, *size).reasons
    if set(evaluator.gate(face, evidence, guessed, *size).reasons) - set(before):
        return 0.0
    return evaluator.bound(guessed)
