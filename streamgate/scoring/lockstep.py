"""Runs generators in lockstep, so that the work on all tracks of a frame shares network batches.

Each generator yields the inference requests that it needs next and receives their results. When several generators run
together, the requests of all of them are collected before any network runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

from streamgate.networks.batcher import InferenceRequest
from streamgate.tracks import Candidate

Steps = Generator[list[InferenceRequest], list[Any], None]
Floor = Callable[[Candidate], float]
"""Returns the quality that a candidate has to exceed, given what is known about the candidate so far."""
Infer = Callable[[Sequence[InferenceRequest]], list[Any]]
"""Runs networks; returns the results in the order of the requests."""


def no_floor(candidate: Candidate) -> float:
    """A floor that accepts any quality."""
    return 0.0


def in_lockstep(all_steps: Iterable[Steps]) -> Steps:
    """Run several generators as one, in lockstep; results do not depend on which generators run together."""
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
    """Run the generators to completion in lockstep."""
    steps = in_lockstep(all_steps)
    requests = next(steps, None)
    while requests is not None:
        try:
            requests = steps.send(infer(requests))
        except StopIteration:
            return
