"""Stored faces under another configuration."""

from __future__ import annotations

from streamgate.frames import Candidate, GateResult, Status
from streamgate.measures.vocabulary import reason_words
from streamgate.tuning.settings import Tuning


def reevaluate(candidate: Candidate, tuning: Tuning, size: tuple[int, int]) -> None:
    """Judge a stored face again, in place; `size`: width and height of the frames of its source, pixels.

    What means the same stays as it was written, to the last digit.
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
        # Pictures of a folder differ in size, and a share of theirs was the limit.
        reasons = set(gate.reasons) ^ {"small"}
        gate = GateResult(
            not reasons and all(candidate.measures[name].status is Status.OK for name in evaluator.names),
            tuple(reason for reason in reason_words(tuning.after.measures.specs) if reason in reasons),
            gate.shortfall,
        )
    candidate.gate = gate


def settle(candidate: Candidate, tuning: Tuning, size: tuple[int, int]) -> None:
    """Judge a face that may be kept by what its whole track showed to be usual, in place."""
    if not tuning.evaluator.follows_reference(candidate):
        tuning.evaluator.evaluate(candidate, *size)


def potential(candidate: Candidate, tuning: Tuning, size: tuple[int, int]) -> float:
    """The quality that a face not scored in full could have at best, its turn guessed where it is not known."""
    evaluator, face, evidence = tuning.evaluator, candidate.face, candidate.evidence
    guessed = evaluator.guessed(face, evidence, candidate.measures)
    before = evaluator.gate(face, evidence, candidate.measures, *size).reasons
    if set(evaluator.gate(face, evidence, guessed, *size).reasons) - set(before):
        return 0.0
    return evaluator.bound(guessed)
