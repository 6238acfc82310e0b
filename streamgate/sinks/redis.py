"""The Redis sink: sends the `final` events of a source to a stream after the commit (docs/design.md 6, Events)."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from streamgate.errors import DeliveryError, SinkError
from streamgate.sinks.delivery_log import log_delivery, read_delivery_log, remove_delivery_log
from streamgate.sinks.redis_stream import MAXLEN, STREAM, RedisStream, pack
from streamgate.sinks.replay_source import FinishedSource, undelivered
from streamgate.sinks.retrying_sender import RETRY_SECONDS, deliver, reach
from streamgate.store.images import JPEG_QUALITY, encode_jpeg
from streamgate.store.records import event, face_record, missed_record, track_record
from streamgate.store.run import RunInfo, SourceInfo, SourceResult
from streamgate.store.sorter import KeyedSorter
from streamgate.tracks import Candidate, TrackEnd

_NAMED = 3
"""Maximum number of sources that a message names."""


class RedisSink:
    """Sends a source's events at its commit: one per kept face, and one with rank 0 per track without a kept face.

    Until then, the events of a source wait as JSON and JPEG in a `KeyedSorter` (in memory up to 2 MiB, then in a
    temporary file). They are sent sorted by (track, rank), in pipelines of at most 64 events and 4 MiB. Each event is
    delivered at least once: after a lost reply, the chunk is sent again, so consumers must de-duplicate events by `id`.

    After transient errors (server unreachable, slow, out of memory, failing over), sending is retried for
    `retry_seconds`. Events that the server has not accepted within that time are counted as missing, and the run
    continues without them: a commit never fails. From then on, at most one source per `retry_seconds` is tried, until
    the server accepts events again; the events of all other sources count as missing. `finish` sends the missing
    events, read back from the results, and raises DeliveryError with the counts if the server still does not accept
    them.

    Args:
        url: redis://[user:password@]host[:port][/db], rediss://... or unix://path[?db=N].
        stream: key of the Redis stream.
        maxlen: the stream is trimmed to about this many events (`MAXLEN ~`).
        jpeg_quality: 1..100.
        retry_seconds: see above; with 0, there is only one attempt.
        results: the output folder, in which delivered sources are recorded and from which missing events are read back;
            `streamgate replay` can send everything again.
        resumed: whether an earlier process may have committed sources of `results`; `finish` sends those that the
            earlier process did not deliver.
        probe: whether entering checks the server, which is useful only at the start of a run.
        stopping: set to end the run; after that, there are no retries.
        warn: called with a one-line message when delivery starts to fail, and when it works again.

    Raises UsageError for a malformed URL; entering raises SinkError when the server cannot be used, so that a wrong
    address is reported before any work is done. Messages never contain secrets of the URL. Thread-safe.
    """

    def __init__(
        self,
        url: str,
        run: RunInfo,
        *,
        stream: str = STREAM,
        maxlen: int = MAXLEN,
        jpeg_quality: int = JPEG_QUALITY,
        retry_seconds: float = RETRY_SECONDS,
        results: Path | None = None,
        resumed: bool = False,
        probe: bool = True,
        stopping: threading.Event | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._stopping = stopping or threading.Event()
        self._stream = RedisStream(url, stream=stream, maxlen=maxlen, stopping=self._stopping)
        self._retry_seconds = retry_seconds
        self._run = run
        self._jpeg_quality = jpeg_quality
        self._results = results
        self._resumed = resumed
        self._probe = probe
        self._delivered: set[str] = set()
        self._warn = warn
        self._mutex = threading.Lock()
        self._sources = self._finals = 0
        """Number of completely delivered sources, and number of their finals."""
        self._missing: dict[str, tuple[str, int, int]] = {}
        """For each source with missing finals, by its id: location, number of delivered finals, number of finals."""
        self._problem: str | None = None
        """Why the source that was last added to `_missing` was not delivered."""
        self._asked: float | None = None
        """When the server last failed to accept a source's events (monotonic); None while it accepts them."""

    def __enter__(self) -> Self:
        if self._probe and (problem := reach(self._stream, retry_seconds=self._retry_seconds, warn=self._warn)):
            self._stream.close()
            if self._stopping.is_set():
                raise KeyboardInterrupt
            raise SinkError(f"cannot use {self._stream.location}: {problem}")
        if self._results is not None and self._resumed:
            self._delivered = read_delivery_log(self._results, self._stream.location)
        elif self._results is not None:
            with suppress(OSError):
                remove_delivery_log(self._results)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None:
            self._raise_missing()

    def open_source(self, source: SourceInfo) -> _RedisWriter:
        return _RedisWriter(self, source, self._run.calibration_id, self._jpeg_quality)

    def finish(self, results: list[SourceResult], timing: Mapping[str, float]) -> None:
        """Send the missing events. Raises DeliveryError if the server does not accept them."""
        if self._results is not None and (self._resumed or self._missing):
            self._catch_up(undelivered(self._results, self._delivered))
        self._raise_missing()

    def _catch_up(self, sources: Iterable[FinishedSource]) -> None:
        """Send committed sources that were not delivered, until the server fails."""
        problem = None
        for source in sources:
            damages: list[str] = []
            sent, lost = 0, problem
            if problem is None:
                sent, problem = self._deliver(source.events(damages.append))
                lost = f"the results are damaged ({damages[0]})" if problem is None and damages else problem
            self._note(SourceInfo(source.location, source.source_id), sent, source.finals, lost)

    def _send(self, events: KeyedSorter, source: SourceInfo) -> None:
        """Deliver a source's events in order and record how many were not delivered."""
        with self._mutex:
            now = time.monotonic()
            before = self._asked
            if before is not None and now - before < self._retry_seconds:
                self._count(source, 0, len(events), self._problem or "no connection")
                return
            # Set before sending, so that no other thread tries the failing server in the meantime.
            self._asked = None if before is None else now
        sent, problem = self._deliver(events.in_order(), patient=before is None)
        self._note(source, sent, len(events), problem)
        with self._mutex:
            away = self._asked is not None
            self._asked = None if problem is None else time.monotonic()
        if problem is not None and not away:
            self._warn(
                f"{self._stream.location}: {sent} of {len(events)} finals of {source.location} delivered: "
                f"{problem}; the run continues, and the missing finals are sent at its end if possible"
            )
        elif problem is None and away:
            self._warn(f"{self._stream.location}: delivery of finals works again")

    def _deliver(self, events: Iterable[bytes], *, patient: bool = True) -> tuple[int, str | None]:
        seconds = self._retry_seconds if patient else 0.0
        return deliver(self._stream, events, retry_seconds=seconds, warn=self._warn)

    def _note(self, source: SourceInfo, sent: int, total: int, problem: str | None) -> None:
        """Record that `sent` of a source's events were delivered, and why the others were not."""
        with self._mutex:
            self._count(source, sent, total, problem)
            if problem is None:
                self._delivered.add(source.source_id)
                if self._results is not None:
                    log_delivery(self._results, self._stream.location, source.source_id)

    def _count(self, source: SourceInfo, sent: int, total: int, problem: str | None) -> None:
        self._missing.pop(source.source_id, None)
        if problem is None:
            self._sources += 1
            self._finals += total
        else:
            self._problem = problem
            self._missing[source.source_id] = (source.location, sent, total)

    def _lost(self, source: SourceInfo, problem: str, total: int) -> None:
        """Record a source whose events could not be stored for sending."""
        with self._mutex:
            self._count(source, 0, total, problem)
        self._warn(f"{source.location}: {problem}; its {total} finals are not sent to {self._stream.location}")

    def _raise_missing(self) -> None:
        with self._mutex:
            text = self._missing_text()
            self._missing.clear()
        if not text:
            return
        again = ""
        if self._results is not None:
            again = (
                f". All faces are in {self._results}; to send them again, run `streamgate replay "
                f"{shlex.quote(str(self._results))} --sink {shlex.quote(self._stream.location)}`"
            )
        raise DeliveryError(f"{self._stream.location}: {text}{again}")

    def _missing_text(self) -> str:
        """One line about missing events; empty when everything was delivered."""
        if not self._missing:
            return ""
        some = list(self._missing.values())
        sent = self._finals + sum(arrived for _, arrived, _ in some)
        total = self._finals + sum(count for _, _, count in some)
        named = ", ".join(f"{location} ({arrived} of {count})" for location, arrived, count in some[:_NAMED])
        more = f" and {len(some) - _NAMED} more" if len(some) > _NAMED else ""
        return (
            f"{sent} of {total} finals delivered, {total - sent} missing, from {len(some)} of "
            f"{self._sources + len(some)} sources: {named}{more}; reason: {self._problem}"
        )


class _RedisWriter:
    def __init__(self, sink: RedisSink, source: SourceInfo, calibration_id: str, jpeg_quality: int) -> None:
        self._sink = sink
        self._source = source
        self._calibration_id = calibration_id
        self._jpeg_quality = jpeg_quality
        self._events = KeyedSorter()
        self._count = 0
        self._problem: str | None = None

    def evaluated(self, candidate: Candidate) -> None:
        """Candidates are not sent."""

    def track(self, ended: TrackEnd) -> None:
        track_id = ended.track.track_id
        self._count += len(ended.shots) or 1
        if self._problem is not None:
            return
        try:
            for shot in ended.shots:
                jpeg = encode_jpeg(shot.image, self._jpeg_quality)
                self._events.put((track_id, shot.rank), pack(event(face_record(shot, None), "final", jpeg)))
            if not ended.shots:
                record = missed_record(track_record(ended), self._source.location, self._calibration_id)
                self._events.put((track_id, 0), pack(event(record, "final", None)))
        except OSError as error:
            # The disk of the temporary files may be full although the disk of the results is not.
            self._problem = f"cannot store waiting events in temporary files: {error.strerror or error}"
            self.discard()

    def commit(self, result: SourceResult) -> None:
        """Send the events; server errors are never raised."""
        if self._problem is not None:
            self._sink._lost(self._source, self._problem, self._count)
        else:
            self._sink._send(self._events, self._source)
        self.discard()

    def discard(self) -> None:
        with suppress(OSError):  # on a full disk, closing fails too
            self._events.close()
