"""Work that needs networks, written as generators so that all tracks of a moment share their batches.

A step generator yields the network runs it needs next and is sent their results; whoever drives several of
them collects the runs of all before any network starts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from streamgate.frames import Array, Candidate


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
