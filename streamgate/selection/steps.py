"""Work that needs networks, written as generators so that all tracks of a moment share their batches.

A step generator yields the network runs it needs next and is sent their results; whoever drives several of
them collects the runs of all before any network starts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from streamgate.frames import Array, Candidate, Picture


@dataclass(frozen=True, slots=True)
class Ask:
    """One network run: `role` is detector, recognizer, pose or ifqa; `crop` RGB uint8 of that role's size."""

    role: str
    crop: Array


Steps = Generator[list[Ask], list[Any], None]
Floor = Callable[[Candidate], float]
"""The quality that a candidate has to exceed, by what is known of it so far."""


def no_floor(candidate: Candidate) -> float:
    """Any quality will do."""
    return 0.0


class CandidateScorer(Protocol):
    """Turns pixels into measures; the runtime's scoring does it with the networks."""

    def glance(self, candidate: Candidate, picture: Picture) -> float:
        """Fill in what needs no network; returns the promise: the quality at best, head turns guessed."""
        ...

    def score(self, candidate: Candidate, picture: Picture, floor: Floor, *, full: bool) -> Steps:
        """Score step by step. Stops early when the gate fails or quality cannot exceed `floor`, unless `full`."""
        ...

    def crop(self, candidate: Candidate, picture: Picture) -> Array:
        """The picture to be kept."""
        ...

    def fingerprint(self, candidate: Candidate, picture: Picture) -> int | None:
        """The perceptual hash of what may be kept; None where its landmarks define none."""
        ...

    def thumbnail(self, candidate: Candidate, picture: Picture) -> Array | None:
        """A small picture of the same square; None where its landmarks define none. Asked for near misses only."""
        ...


Infer = Callable[[Sequence[Ask]], list[Any]]


def together(all_steps: Iterable[Steps]) -> Steps:
    """Several generators as one, in lockstep; results never depend on which ones run together."""
    waiting = []
    for steps in all_steps:
        asks = next(steps, None)
        if asks is not None:
            waiting.append((steps, asks))
    while waiting:
        results = yield [ask for _, asks in waiting for ask in asks]
        following = []
        place = 0
        for steps, asks in waiting:
            answers = results[place : place + len(asks)]
            place += len(asks)
            try:
                following.append((steps, steps.send(answers)))
            except StopIteration:
                continue
        waiting = following


def run_together(all_steps: Iterable[Steps], infer: Infer) -> None:
    """Drive the generators to their ends in lockstep."""
    steps = together(all_steps)
    asks = next(steps, None)
    while asks is not None:
        try:
            asks = steps.send(infer(asks))
        except StopIteration:
            return
