"""From an event to those who wait for it: spool, Redis, disk. Nothing here makes a stream wait for a server.

put -> inbox -> spool (fsynced) -> sender -> Redis        at least once, in order
             \\-> folder (finals with a face)              once
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar

from streamgate.errors import SinkError
from streamgate.frames import BestShot
from streamgate.service.framequeue import Timestamp
from streamgate.service.meters import Metric, Sample
from streamgate.service.state import ServiceState
from streamgate.sinks.livefolder import LiveFolder
from streamgate.sinks.redisstream import RedisStream, pack
from streamgate.sinks.spool import Item, Spool
from streamgate.store.jsonlines import Record
from streamgate.store.records import event

_INBOX = 256
"""Packed events that may wait for the spool, some 60 kB each."""
_OUTBOX = 64
"""Faces that may wait for the folder, some 0.8 MB each."""
_CHUNK_EVENTS = 64
_CHUNK_BYTES = 4 << 20
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Between attempts that bring nothing across; the last one again and again."""
_TIDY_S = 60.0
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One event on its way out.

    Attributes:
        record: its `json`; for Redis, so without `image`.
        shot: the face, None for a track that keeps nothing.
        captured: arrival of the face's frame.
        ended: when the track ended; None for an `improved`.
    """

    kind: str
    record: Record
    jpeg: bytes | None
    shot: BestShot | None
    captured: Timestamp | None
    ended: Timestamp | None


class Delivery:
    """Takes events from all streams. A context manager: leaving it makes the spool durable.

    Args:
        redis: None where there is no Redis; then there is no spool either.
        log: told of troubles and their ends, a line each.
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
        """This process's events without what is big, by their number in the spool."""
        self._book = threading.Lock()
        self._delivered = 0
        self._stopping = threading.Event()
        self._giving_up = threading.Event() if redis is None else redis.stopping
        self._threads: list[threading.Thread] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Open spool and folder and start. Raises SinkError."""
        with ExitStack() as stack:
            # The spool may be in the folder.
            if self._folder is not None:
                stack.enter_context(self._folder)
            if self._spool is not None:
                stack.enter_context(self._spool)
            self._stack = stack.pop_all()
        self._state.collect(self._metrics)
        if self._spool is not None and self._redis is not None:
            self._state.destination("redis", url=self._redis.location, ok=True, error=None)
            if len(self._spool):
                self._log(f"{len(self._spool)} events of an earlier run wait in the spool")
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
        """Take an event; waits only when hundreds already wait for a disk that hangs."""
        if self._spool is not None:
            light = replace(one, record={}, jpeg=None, shot=None)
            self._inbox.put((pack(event(one.record, one.kind, one.jpeg)), light))
        if self._folder is not None and one.kind == "final" and one.shot is not None:
            self._outbox.put(one)

    def stop(self, seconds: float) -> None:
        """Write what is under way, and send on for up to `seconds`; what is left stays in the spool."""
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
        """Bring the destinations of the overview up to date."""
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
            # A defect of ours must not end delivery for the months that follow.
            while True:
                try:
                    return work()
                except Exception as error:
                    if self._giving_up.wait(1.0):
                        return
                    self._state.faults.add("internal")
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
                self._state.faults.add("spool")
                if ok:
                    self._log(f"spool: {problem}; events wait in memory")
            elif not ok:
                self._log("spool: the disk takes events again")
            ok = problem is None

    def _sending(self) -> None:
        assert self._spool is not None and self._redis is not None
        failures, most = 0, _CHUNK_EVENTS
        while True:
            if not self._spool.wait(0.2):
                if self._giving_up.is_set():
                    return
                continue
            chunk = self._spool.peek(most, _CHUNK_BYTES)
            if not chunk:
                continue
            taken, error = self._redis.attempt([item.data for item in chunk])
            if taken:
                self._acknowledged(chunk[:taken])
                if failures:
                    self._log(f"redis: events arrive again, {len(self._spool)} wait")
                    self._state.destination("redis", ok=True, error=None)
                failures = 0
            if error is None:
                most = min(2 * most, _CHUNK_EVENTS)
                continue
            # What a slow line or a full server does not take as a whole may go through in parts.
            most = max(most // 8, 1)
            if failures == 0 or failures % 60 == 0:
                self._log(f"redis: {self._redis.explain(error)}; {len(self._spool)} events wait in the spool")
            self._state.faults.add("redis")
            self._state.destination("redis", ok=False, error=self._redis.explain(error))
            if self._giving_up.is_set():
                return
            self._giving_up.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1

    def _acknowledged(self, chunk: list[Item]) -> None:
        assert self._spool is not None
        self._spool.done(chunk[-1].number)
        self._delivered += len(chunk)
        with self._book:
            found = [self._waiting.pop(item.number, None) for item in chunk]
            # Those before them were dropped at the spool's bound.
            while self._waiting and next(iter(self._waiting)) < chunk[0].number:
                self._waiting.pop(next(iter(self._waiting)))
        for one in found:
            if one is not None:
                self._measure(one)

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
                    self._state.faults.add("disk")
                    self._state.destination("disk", ok=False, error=str(error))
                    if ok:
                        self._log(f"{error}; faces are not written until this is mended")
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
        self._state.events.add(one.kind)
        if one.ended is not None:
            self._state.final_latency.observe(now - one.ended.monotonic)
        if one.captured is not None:
            self._state.capture_latency.observe(now - one.captured.monotonic, one.kind)

    def _metrics(self) -> list[Metric]:
        self.figures()
        found = []
        if self._spool is not None:
            found += [
                _metric("streamgate_spool_events", "Events that wait for Redis.", "gauge", len(self._spool)),
                _metric("streamgate_spool_bytes", "Size of what waits for Redis.", "gauge", self._spool.size),
                _metric(
                    "streamgate_spool_dropped", "Events dropped at the spool's bound.", "counter", self._spool.dropped
                ),
                _metric(
                    "streamgate_spool_damaged", "Places of the spool that could not be read.", "counter",
                    self._spool.damaged,
                ),
                _metric(
                    "streamgate_spool_set_aside", "Damaged files of the spool that were set aside.", "counter",
                    self._spool.set_aside,
                ),
            ]
        if self._folder is not None:
            found += [
                _metric("streamgate_output_bytes", "Size of the faces on disk.", "gauge", self._folder.size),
                _metric("streamgate_output_removed", "Faces removed for age or size.", "counter", self._folder.removed),
            ]
        return found


def _metric(name: str, text: str, kind: str, value: float) -> Metric:
    return Metric(name, text, kind, (Sample(float(value)),))  # type: ignore[arg-type]


def _batch(box: queue.Queue[_Item]) -> list[_Item]:
    """All that waits, up to a chunk; nothing when a moment passes and nothing comes."""
    events: list[_Item] = []
    try:
        events.append(box.get(timeout=0.25))
        while len(events) < _CHUNK_EVENTS:
            events.append(box.get_nowait())
    except queue.Empty:
        pass
    return events
