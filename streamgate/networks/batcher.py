"""One queue per role, shared by all tracks and sources, so that a GPU gets full batches.

Results do not depend on the other items of a batch: `Session.run_pictures` guarantees this exactly on the CPU, and to
within 1e-3 on a GPU. Queues are bounded: `submit` blocks while the role's queue is full.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from threading import Condition, Semaphore, Thread
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np

from streamgate.frames import Array
from streamgate.networks.ifqa import ifqa_scores
from streamgate.networks.network_set import Networks
from streamgate.networks.pose import head_poses
from streamgate.networks.recognizer import RecognizerOutput
from streamgate.parallel import usable_cores

WITHOUT_REAL = "expression:without_real"
"""Role of a request to the expression network that does not need the output `real`."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One item for a network.

    `role` is one of `weights.ROLES`, `WITHOUT_REAL`, or the name of a measure with its own crop; `crop` is RGB uint8 of
    the size that the network expects.
    """

    role: str
    crop: Array


Runner = Callable[[Sequence[Array]], Sequence[Any]]
"""A function that returns one result for each array, in the same order."""
Observer = Callable[[str, int, float], None]
"""A function that is called after each run with the role, the number of items and the duration of the run in seconds.
"""


FILL_S = 0.005
"""Maximum time in seconds that an incomplete batch waits on a GPU while another batch of its role is running."""
_GPU_WORKERS = 2
"""Threads per role on a GPU: while the batch of one thread runs, the other prepares a batch or reads results."""
_GPU_BATCHES_WAITING = 4
_CLOSED = "the networks are closed: a Gate cannot be used after close() was called or its `with` block has ended"


class Batcher:
    """Runs submitted pictures on worker threads and returns results as futures.

    For "detector", the result is a list[Face]. For "recognizer", "expression" and "ifqa", it is a RecognizerOutput,
    ExpressionOutput or CropOutput of one face, without the N axis. For "pose", it is float32 (3,), in degrees. Use the
    batcher as a context manager.
    """

    def __init__(
        self,
        runners: Mapping[str, Runner],
        max_batch: int | Mapping[str, int] = 16,
        limit: int = 64,
        workers: int = 1,
        observe: Observer | None = None,
        fill_s: float = 0.0,
    ):
        """Start `workers` threads per role; a run has at most `max_batch` items.

        At most `limit` items wait per role and client. If `fill_s` is not 0, an incomplete batch waits up to that many
        seconds for more items while another batch of its role is running.
        """
        self._inline = max_batch == 1
        sizes = {role: max_batch if isinstance(max_batch, int) else max_batch[role] for role in runners}
        self._queues = {
            role: _RoleQueue(role, _observed(role, run, observe), sizes[role], limit, workers, fill_s)
            for role, run in runners.items()
        }

    @classmethod
    def over(
        cls,
        networks: Networks,
        threshold: float = 0.5,
        workers: int | None = None,
        limit: int = 64,
        observe: Observer | None = None,
    ) -> Batcher:
        """A batcher for open networks; `threshold` is the minimum score of a detected face.

        On the CPU, each item is a separate run, and up to `workers` runs of a role execute at once (default: one per
        core, at most 8, because each run holds its own activations). On a GPU, batches are filled from all clients.
        """
        found = runners(networks, threshold)
        if not networks.bound:
            return cls(found, 1, limit, workers or min(8, usable_cores()), observe)
        # A GPU computes all outputs: with one queue, batches are filled sooner, and no face is run again for `real`.
        found.pop(WITHOUT_REAL, None)
        sizes = {role: networks.batch(role) for role in found}
        limit = max(limit, _GPU_BATCHES_WAITING * max(sizes.values()))
        batcher = cls(found, sizes, limit, workers or _GPU_WORKERS, observe, FILL_S)
        if "expression" in found:
            batcher._queues[WITHOUT_REAL] = batcher._queues["expression"]
        return batcher

    def submit(self, role: str, picture: Array, client: str = "") -> Future[Any]:
        """Queue one picture; the future returns its result or raises the exception of its run.

        Clients are served round-robin, so that a client with many requests (a crowd) does not starve the others.

        Raises:
            KeyError: the role has no network (expression or ifqa without weights).
            RuntimeError: the batcher is closed.
        """
        return self._queues[role].submit(picture, client)

    def infer(self, requests: Sequence[InferenceRequest], client: str = "") -> list[Any]:
        """Results in the order of `requests`.

        On a GPU, all requests are queued before the first result is awaited. On the CPU, the calling thread runs the
        first request itself, and then each request that no worker has started yet. This is faster than handing every
        run to another thread, which acquires the interpreter lock three times: in a busy service, waiting for the lock
        takes longer than the run.
        """
        if not self._inline:
            futures = [self.submit(request.role, request.crop, client) for request in requests]
            return [future.result() for future in futures]
        if not requests:
            return []
        first, *others = requests
        futures = [self.submit(request.role, request.crop, client) for request in others]
        results = [self._queues[first.role].run(first.crop)]
        for request, future in zip(others, futures, strict=True):
            begun = not future.cancel()
            results.append(future.result() if begun else self._queues[request.role].run(request.crop))
        return results

    def close(self) -> None:
        """Finish the queued requests, then stop the threads; a second call does nothing."""
        for lane in self._queues.values():
            lane.close()
        for lane in self._queues.values():
            lane.join()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def runners(networks: Networks, threshold: float) -> dict[str, Runner]:
    """The functions that the batcher runs, for each role that has weights."""

    def recognize(crops: Sequence[Array]) -> list[RecognizerOutput]:
        out = networks.recognizer.run(np.stack(crops))
        return [out.row(i) for i in range(len(crops))]

    found: dict[str, Runner] = {
        "detector": lambda pictures: networks.detector.detect(pictures, threshold),
        "recognizer": recognize,
        "pose": lambda crops: list(head_poses(networks.pose, np.stack(crops))),
    }
    if (expression := networks.expression) is not None:
        found["expression"] = lambda crops: expression.run(np.stack(crops))
        found[WITHOUT_REAL] = lambda crops: expression.run(np.stack(crops), real=False)
    if networks.ifqa is not None:
        found["ifqa"] = partial(ifqa_scores, networks.ifqa)
    return found | {name: measure.run for name, measure in networks.crop_measures.items()}


def _network_of(role: str) -> str:
    """The role of the network that answers requests with `role`."""
    return role.partition(":")[0]


def _observed(role: str, run: Runner, observe: Observer | None) -> Runner:
    if observe is None:
        return run

    def timed(pictures: Sequence[Array]) -> Sequence[Any]:
        began = perf_counter()
        results = run(pictures)
        observe(_network_of(role), len(pictures), perf_counter() - began)
        return results

    return timed


class _RoleQueue:
    """The queue and the threads of one role."""

    def __init__(self, role: str, run: Runner, max_batch: int, limit: int, workers: int, fill_s: float) -> None:
        self._run = run
        self._max_batch = max_batch
        self._limit = limit
        self._fill_s = fill_s
        self._running = 0
        self._slots = Semaphore(workers)
        # Waiting requests by client; the client that was served last is at the end.
        self._waiting: OrderedDict[str, deque[tuple[Array, Future[Any]]]] = OrderedDict()
        self._changed = Condition()
        self._closed = False
        self._threads = [
            Thread(target=self._work, name=f"streamgate-{role}-{index}", daemon=True) for index in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, picture: Array, client: str) -> Future[Any]:
        future: Future[Any] = Future()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting.get(client, ())) < self._limit)
            if self._closed:
                raise RuntimeError(_CLOSED)
            self._waiting.setdefault(client, deque()).append((picture, future))
            self._changed.notify_all()
        return future

    def run(self, picture: Array) -> Any:
        """Run the network on one picture, in the calling thread.

        `_slots` limits the number of simultaneous runs, because each run holds its own activations.
        """
        if self._closed:
            raise RuntimeError(_CLOSED)
        with self._slots:
            return self._run([picture])[0]

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._waiting))
                if self._fill_s:
                    self._changed.wait_for(self._is_due, self._fill_s)
                if not self._waiting:
                    if self._closed:
                        return
                    continue  # another worker has taken the requests
                taken: list[tuple[Array, Future[Any]]] = []
                while self._waiting and len(taken) < self._max_batch:
                    taken.append(self._next())
                self._running += 1
                self._changed.notify_all()
            # Requests that were cancelled while they waited are dropped; the others can no longer be cancelled.
            taken = [(picture, future) for picture, future in taken if future.set_running_or_notify_cancel()]
            if taken:
                self._answer(taken)
            with self._changed:
                self._running -= 1
                if self._fill_s:
                    self._changed.notify_all()

    def _is_due(self) -> bool:
        full = sum(len(queue) for queue in self._waiting.values()) >= self._max_batch
        return full or self._running == 0 or self._closed

    def _next(self) -> tuple[Array, Future[Any]]:
        client, queue = self._waiting.popitem(last=False)
        item = queue.popleft()
        if queue:
            self._waiting[client] = queue
        return item

    def _answer(self, taken: list[tuple[Array, Future[Any]]]) -> None:
        try:
            with self._slots:
                results = self._run([picture for picture, _ in taken])
        except BaseException as error:  # the callers raise the error, because this thread must continue
            for _, future in taken:
                future.set_exception(error)
            return
        for (_, future), result in zip(taken, results, strict=True):
            future.set_result(result)
