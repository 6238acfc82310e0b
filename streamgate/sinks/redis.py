"""The Redis sink: `final` events on a stream, sent after their source is committed (DESIGN 6, Events)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

from streamgate.errors import SinkError
from streamgate.frames import Candidate, TrackEnd
from streamgate.records import event, face_record, missed_record, track_record
from streamgate.sinks.base import RunInfo, SourceInfo, SourceResult
from streamgate.sinks.images import encode_jpeg
from streamgate.sinks.redisstream import MAXLEN, STREAM, RedisStream, may_pass, pack
from streamgate.sinks.shelf import Shelf

_CHUNK_EVENTS = 64
_CHUNK_BYTES = 4 << 20
_RETRY_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Pauses between attempts that bring no event across; progress starts them anew."""


class RedisSink:
    """Sends one event a kept face, and one of rank 0 for a track that keeps nothing, when its source commits.

    Events of a source wait as JSON and JPEG on a `Shelf` (2 MiB of memory, then a temporary file) and leave
    sorted by (track, rank), in pipelines of at most 64 events or 4 MiB. Delivery is at least once: after a
    lost answer a chunk goes again, `id` de-duplicates. Faults that may pass (away, out of memory, failing
    over) are retried for about three seconds without progress, beyond the time-outs themselves.

    Args:
        url: redis://[user:password@]host[:port][/db], rediss://... or unix://path[?db=N].
        stream: key of the Redis stream.
        maxlen: the stream is trimmed to about this many events (`MAXLEN ~`).
        jpeg_quality: 1..100.

    Raises UsageError for a malformed URL; entering raises SinkError when the server cannot be used, so that
    a wrong address is known before any work. Messages never hold secrets of the URL. Safe for several
    threads.
    """

    def __init__(
        self, url: str, run: RunInfo, *, stream: str = STREAM, maxlen: int = MAXLEN, jpeg_quality: int = 92
    ) -> None:
        self._stream = RedisStream(url, stream=stream, maxlen=maxlen)
        self._run = run
        self._jpeg_quality = jpeg_quality
        self._mutex = threading.Lock()
        self._delivered = 0

    def __enter__(self) -> Self:
        if problem := self._stream.probe():
            self._stream.close()
            raise SinkError(problem)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def open_source(self, source: SourceInfo) -> _RedisWriter:
        return _RedisWriter(self, source, self._run.calibration_id, self._jpeg_quality)

    def finish(self, results: list[SourceResult], timing: Mapping[str, float]) -> None:
        """Nothing covers the whole run here."""

    def _send(self, events: Shelf, source: SourceInfo) -> None:
        """Deliver a source's events in order. Raises SinkError with the counts."""
        sent = 0
        problem: str | None = None
        for chunk in _chunks(events):
            left, problem = self._deliver(chunk)
            sent += len(chunk) - len(left)
            if problem:
                break
        with self._mutex:
            self._delivered += sent
            before = self._delivered - sent
        if problem:
            raise SinkError(
                f"{self._stream.location}: {sent} of {len(events)} events of {source.location} delivered, "
                f"{len(events) - sent} not ({before} of sources before it): {problem}"
            )

    def _deliver(self, chunk: list[bytes]) -> tuple[list[bytes], str | None]:
        """Send a chunk, again and again; returns what stays undelivered, and why."""
        pauses = iter(_RETRY_SECONDS)
        while True:
            left, error = self._stream.attempt(chunk)
            if error is None:
                return [], None
            if len(left) < len(chunk):
                pauses = iter(_RETRY_SECONDS)
            chunk = left
            pause = next(pauses, None) if may_pass(error) else None
            if pause is None:
                return chunk, self._stream.explain(error)
            time.sleep(pause)


class _RedisWriter:
    def __init__(self, sink: RedisSink, source: SourceInfo, calibration_id: str, jpeg_quality: int) -> None:
        self._sink = sink
        self._source = source
        self._calibration_id = calibration_id
        self._jpeg_quality = jpeg_quality
        self._events = Shelf()

    def evaluated(self, candidate: Candidate) -> None:
        """Candidates are no events."""

    def track(self, ended: TrackEnd) -> None:
        track_id = ended.track.track_id
        try:
            for shot in ended.shots:
                jpeg = encode_jpeg(shot.image, self._jpeg_quality)
                self._events.put((track_id, shot.rank), pack(event(face_record(shot, None), "final", jpeg)))
            if not ended.shots:
                record = missed_record(track_record(ended), self._source.location, self._calibration_id)
                self._events.put((track_id, 0), pack(event(record, "final", None)))
        except OSError as error:
            reason = error.strerror or error
            raise SinkError(f"no room for waiting events in temporary files: {reason}") from error

    def commit(self, result: SourceResult) -> None:
        """Send the events. Raises SinkError saying how many were delivered and how many not."""
        self._sink._send(self._events, self._source)
        self._events.close()

    def discard(self) -> None:
        self._events.close()


def _chunks(events: Shelf) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for item in events.in_order():
        if chunk and (len(chunk) >= _CHUNK_EVENTS or size + len(item) > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item)
    if chunk:
        yield chunk
