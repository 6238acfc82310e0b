"""Delivers events to the spool, Redis and the disk. A stream never has to wait for a server.

put -> inbox -> spool (fsynced) -> sender -> Redis        at least once, in order
             \\-> folder (finals with a face)              once
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamgate.errors import SinkError
from streamgate.service.frame_queue import Timestamp
from streamgate.service.live_folder import LiveFolder
from streamgate.service.spool import Item, Spool
from streamgate.service.state import ServiceState
from streamgate.sinks.redis_stream import RedisStream, pack
from streamgate.sinks.retrying_sender import CHUNK_BYTES, CHUNK_EVENTS, pause, send_in_order
from streamgate.store.jsonlines import Record
from streamgate.store.records import event
from streamgate.tracks import BestShot

_INBOX = 256
"""Maximum number of packed events that wait for the spool, about 60 kB each."""
_OUTBOX = 64
"""Maximum number of faces that wait for the folder, about 0.8 MB each."""
_LOGGED_EVERY = 60
"""Number of consecutive failed attempts between two log lines; this many attempts take about five minutes."""
_TIDY_S = 60.0
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One event to deliver.

    Attributes:
        record: the event's `json` field as it is sent to Redis, without `image`.
        shot: the face; None for a track without a kept face.
        captured: when the face's frame arrived; None if there is no face.
        ended: when the track ended; None for an `improved`.
    """

    kind: str
    record: Record
    jpeg: bytes | None
    shot: BestShot | None
    captured: Timestamp | None
    ended: Timestamp | None


class Delivery(Collector):
    """Delivers the events of all streams. A context manager; leaving it writes the spool to disk.

    Args:
        redis: None if Redis is not used; then there is no spool either.
        log: called with one line when a problem starts and one when it ends.
    """

    def __init__(
        self,
        state: ServiceState,
        *,
        redis: RedisStream | None,
        spool: Spool | None,
        folder: LiveFolder | None,
        log: Callable[[str], None],
    ) -> None:
        self._state = state
        self._redis = redis
        self._spool = spool
        self._folder = folder
        self._log = log
        self._inbox: queue.Queue[tuple[bytes, LiveEvent]] = queue.Queue(_INBOX)
        self._outbox: queue.Queue[LiveEvent] = queue.Queue(_OUTBOX)
        self._waiting: dict[int, LiveEvent] = {}
        """Undelivered events of this process, without their large fields, by their number in the spool."""
        self._book = threading.Lock()
        self._sent: list[Item] = []
        """The items that are being sent."""
        self._failing = False
        self._delivered = 0
        self._stopping = threading.Event()
        self._giving_up = threading.Event() if redis is None else redis.stopping
        self._threads: list[threading.Thread] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Open the spool and the folder and start the threads. Raises SinkError."""
        with ExitStack() as stack:
            # The folder is opened first because the spool may be inside it.
            if self._folder is not None:
                stack.enter_context(self._folder)
            if self._spool is not None:
                stack.enter_context(self._spool)
            self._stack = stack.pop_all()
        self._state.registry.register(self)
        if self._spool is not None and self._redis is not None:
            self._state.destination("redis", url=self._redis.location, ok=True, error=None)
            if len(self._spool):
                self._log(f"{len(self._spool)} events of an earlier run are waiting in the spool")
            self._start("spool", self._spooling)
            self._start("redis", self._sending)
        if self._folder is not None:
            self._state.destination("disk", path=self._folder.display, ok=True, error=None)
            self._start("folder", self._writing)
        self.figures()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(0.0)
        self._stack.close()

    def put(self, one: LiveEvent) -> None:
        """Queue an event; blocks only if so many events are waiting, because the disk hangs, that a queue is full."""
        if self._spool is not None:
            light = replace(one, record={}, jpeg=None, shot=None)
            self._inbox.put((pack(event(one.record, one.kind, one.jpeg)), light))
        if self._folder is not None and one.kind == "final" and one.shot is not None:
            self._outbox.put(one)

    def stop(self, seconds: float) -> None:
        """Finish pending writes and continue sending for up to `seconds`; unsent events stay in the spool."""
        if self._stopping.is_set():
            return
        until = time.monotonic() + seconds
        self._stopping.set()
        for name in ("spool", "folder", "redis"):
            for thread in self._threads:
                if thread.name == f"streamgate-{name}":
                    if name == "redis":
                        self._giving_up.set()
                    thread.join(max(0.2, until - time.monotonic()))
        if self._redis is not None:
            self._redis.close()

    def figures(self) -> None:
        """Update the state of the destinations in the overview."""
        if self._spool is not None:
            self._state.destination(
                "redis",
                spool_events=len(self._spool),
                spool_bytes=self._spool.size,
                spool_dropped=self._spool.dropped,
                spool_damaged=self._spool.damaged,
                spool_set_aside=self._spool.set_aside,
                delivered=self._delivered,
            )
        if self._folder is not None:
            self._state.destination("disk", bytes=self._folder.size, files_removed=self._folder.removed)

    def _start(self, name: str, work: Callable[[], None]) -> None:
        def guarded() -> None:
            # A service runs for months, so a bug in this code must not stop delivery until the service is restarted.
            while True:
                try:
                    return work()
                except Exception as error:
                    if self._giving_up.wait(1.0):
                        return
                    self._state.faults.labels("internal").inc()
                    self._log(f"{name}: internal error ({type(error).__name__}: {error}); please report it")

        thread = threading.Thread(target=guarded, name=f"streamgate-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _spooling(self) -> None:
        assert self._spool is not None
        ended = False
        ok = True
        while not ended:
            events = _batch(self._inbox)
            if not events:
                ended = self._stopping.is_set()
                continue
            with self._book:
                numbers, problem = self._spool.append([packed for packed, _ in events])
                self._waiting.update(zip(numbers, [light for _, light in events], strict=True))
            if problem is not None:
                self._state.faults.labels("spool").inc()
                if ok:
                    self._log(f"spool: {problem}; events are held in memory until this is fixed")
            elif not ok:
                self._log("spool: events are written to disk again")
            ok = problem is None

    def _sending(self) -> None:
        assert self._redis is not None
        send_in_order(self._redis, self._next, self._acknowledged, self._retry)

    def _next(self, most: int) -> list[bytes]:
        """Wait for events and return the oldest ones; returns an empty list when the delivery has to stop."""
        assert self._spool is not None
        while True:
            if self._spool.wait(0.2):
                self._sent = self._spool.peek(most, CHUNK_BYTES)
                if self._sent:
                    return [data for _, data in self._sent]
            elif self._giving_up.is_set():
                return []

    def _acknowledged(self, count: int) -> None:
        assert self._spool is not None
        numbers = [number for number, _ in self._sent[:count]]
        self._spool.done(numbers[-1])
        self._delivered += count
        with self._book:
            found = [self._waiting.pop(number, None) for number in numbers]
            # Events with lower numbers were dropped because the spool was full.
            while self._waiting and next(iter(self._waiting)) < numbers[0]:
                self._waiting.pop(next(iter(self._waiting)))
        for one in found:
            if one is not None:
                self._measure(one)
        if self._failing:
            self._failing = False
            self._log(f"redis: events are delivered again; {len(self._spool)} are still waiting in the spool")
            self._state.destination("redis", ok=True, error=None)

    def _retry(self, error: Exception, failures: int) -> bool:
        """Retry after any error, because the operator of the server may fix the cause at any time. Returns False
        when stopping."""
        assert self._spool is not None and self._redis is not None
        self._failing = True
        if failures % _LOGGED_EVERY == 0:
            self._log(f"redis: {self._redis.explain(error)}; {len(self._spool)} events are waiting in the spool")
        self._state.faults.labels("redis").inc()
        self._state.destination("redis", ok=False, error=self._redis.explain(error))
        if self._giving_up.is_set():
            return False
        pause(self._giving_up, failures)
        return True

    def _writing(self) -> None:
        assert self._folder is not None
        ended, tidied, ok = False, time.monotonic(), True
        while not ended:
            events = _batch(self._outbox)
            ended = not events and self._stopping.is_set()
            for one in events:
                assert one.shot is not None
                try:
                    self._folder.write(one.shot, {**one.record, "image": self._folder.relative_path(one.shot)})
                except SinkError as error:
                    self._state.faults.labels("disk").inc()
                    self._state.destination("disk", ok=False, error=str(error))
                    if ok:
                        self._log(f"{error}; faces are not written until this is fixed")
                    ok = False
                    continue
                if not ok:
                    self._log("disk: faces are written again")
                    self._state.destination("disk", ok=True, error=None)
                ok = True
                if self._redis is None:
                    self._measure(one)
            if time.monotonic() - tidied > _TIDY_S:
                self._folder.tidy()
                tidied = time.monotonic()

    def _measure(self, one: LiveEvent) -> None:
        now = time.monotonic()
        self._state.events.labels(one.kind).inc()
        if one.ended is not None:
            self._state.final_latency.observe(now - one.ended.monotonic)
        if one.captured is not None:
            self._state.capture_latency.labels(one.kind).observe(now - one.captured.monotonic)

    def collect(self) -> Iterator[Metric]:
        """Yield metrics for the registry: waiting events, lost events, bytes on disk."""
        self.figures()  # so that overview and metrics agree
        if (spool := self._spool) is not None:
            yield GaugeMetricFamily("streamgate_spool_events", "Events waiting for Redis.", len(spool))
            yield GaugeMetricFamily("streamgate_spool_bytes", "Size of the events waiting for Redis.", spool.size)
            yield CounterMetricFamily(
                "streamgate_spool_dropped", "Events dropped because the spool was full.", spool.dropped
            )
            yield CounterMetricFamily("streamgate_spool_damaged", "Damaged places in the spool.", spool.damaged)
            yield CounterMetricFamily(
                "streamgate_spool_set_aside", "Damaged spool files that were set aside.", spool.set_aside
            )
        if (folder := self._folder) is not None:
            yield GaugeMetricFamily("streamgate_output_bytes", "Size of the faces on disk.", folder.size)
            yield CounterMetricFamily(
                "streamgate_output_removed", "Faces removed because of the limits on age and size.", folder.removed
            )


def _batch(box: queue.Queue[_Item]) -> list[_Item]:
    """The waiting items, up to one chunk; an empty list if no item arrives within 0.25 s."""
    events: list[_Item] = []
    try:
        events.append(box.get(timeout=0.25))
        while len(events) < CHUNK_EVENTS:
            events.append(box.get_nowait())
    except queue.Empty:
        pass
    return events
