"""Work that needs networks, written as generators so that all tracks of a moment share their batches.

A step generator yields the network runs it needs next and is sent their results; whoever drives several of
them collects the runs of all before any network starts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

from streamgate.frames import Candidate
from streamgate.networks.batcher import InferenceRequest

Steps = Generator[list[InferenceRequest], list[Any], None]
Floor = Callable[[Candidate], float]
"""The quality that a candidate has to exceed, by what is known of it so far."""
Infer = Callable[[Sequence[InferenceRequest]], list[Any]]
"""Runs networks; results in the order of the requests."""


def no_floor(candidate: Candidate) -> float:
    """Any quality will do."""
    return 0.0


def in_lockstep(all_steps: Iterable[Steps]) -> Steps:
    """Several generators as one, in lockstep; results never depend on which ones run together."""
    waiting = []
    for steps in all_steps:
        requests = next(steps, None)
        if requests is not None:
            waiting.append((steps, requests))
    while waiting:
        results = yield [request for _, requests in waiting for request in requests]
        following = []
        index = 0
        for steps, requests in waiting:
            answers = results[index : index + len(requests)]
            index += len(requests)
            try:
                following.append((steps, steps.send(answers)))
            except StopIteration:
                continue
        waiting = following


def run_in_lockstep(all_steps: Iterable[Steps], infer: Infer) -> None:
    """Drive the generators to their ends in lockstep."""
    steps = in_lockstep(all_steps)
    requests = next(steps, None)
    while requests is not None:
        try:
            requests = steps.send(infer(requests))
        except StopIteration:
            return
