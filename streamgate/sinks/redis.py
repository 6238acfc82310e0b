"""The Redis sink: `final` events on a stream, sent after their source is committed (DESIGN 6, Events)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import redis
from redis import exceptions as errors
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamgate.errors import SinkError, UsageError, redact_url, scrub
from streamgate.frames import Candidate, TrackEnd
from streamgate.records import event, face_record, missed_record, track_record
from streamgate.sinks.base import RunInfo, SourceInfo, SourceResult
from streamgate.sinks.images import encode_jpeg
from streamgate.sinks.shelf import Shelf

STREAM = "streamgate:faces"
MAXLEN = 100_000
"""Events that the stream keeps, about; at 512 px and quality 92 an event is some 20 to 80 kB."""

_CHUNK_EVENTS = 64
_CHUNK_BYTES = 4 << 20
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
_RETRY_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Pauses between attempts that bring no event across; progress starts them anew."""

_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (errors.AuthenticationError, "the server refuses user or password; correct them in the URL"),
    (errors.AuthorizationError, "the server refuses user or password; correct them in the URL"),
    (errors.NoPermissionError, "this user may not do that; allow it XADD on the stream (ACL SETUSER)"),
    (errors.OutOfMemoryError, "the server is out of memory; raise its maxmemory or trim the stream"),
    (errors.ReadOnlyError, "the server is a read-only replica; give the address of its primary"),
    (errors.BusyLoadingError, "the server is still loading its data; try again in a moment"),
    (errors.TimeoutError, "the server does not answer in time; check the address and its load"),
    (errors.ConnectionError, "no connection; check that the server runs and that host and port are right"),
)
"""Most special first: some of these derive from the last."""

_FINAL = (errors.AuthenticationError, errors.AuthorizationError)
_PASSING = (
    errors.OutOfMemoryError,
    errors.ReadOnlyError,
    errors.TimeoutError,
    errors.ConnectionError,
    OSError,
)


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
        self._url = url
        self._run = run
        self._stream = stream
        self._maxlen = maxlen
        self._jpeg_quality = jpeg_quality
        self._mutex = threading.Lock()
        self._delivered = 0
        self._client = _connect(url)

    def __enter__(self) -> Self:
        if problem := self._probe():
            self._client.close()
            raise SinkError(problem)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def open_source(self, source: SourceInfo) -> _RedisWriter:
        return _RedisWriter(self, source, self._run.calibration_id, self._jpeg_quality)

    def finish(self, results: list[SourceResult], timing: Mapping[str, float]) -> None:
        """Nothing covers the whole run here."""

    def _probe(self) -> str | None:
        """One line about why events could not be sent; None when they can."""
        try:
            self._client.ping()
            # A write that never changes anything (no entry has this id): it meets a read-only
            # server or a key of another type now and not after the first source's work.
            self._client.xdel(self._stream, "0-0")
        except errors.NoPermissionError:
            return None  # a user allowed nothing but XADD is fine
        except (errors.RedisError, OSError) as error:
            return f"cannot use {redact_url(self._url)}: {self._explain(error)}"
        return None

    def _explain(self, error: Exception) -> str:
        remedy = next((remedy for kind, remedy in _REMEDIES if isinstance(error, kind)), None)
        # The server knows user and password decoded.
        said = " ".join(scrub(str(error), self._url, unquote(self._url)).split())[:200]
        if "WRONGTYPE" in said:
            remedy = f"the key {self._stream!r} is not a stream; remove or rename it"
        return f"{remedy} ({said})" if remedy else said

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
                f"{redact_url(self._url)}: {sent} of {len(events)} events of {source.location} delivered, "
                f"{len(events) - sent} not ({before} of sources before it): {problem}"
            )

    def _deliver(self, chunk: list[bytes]) -> tuple[list[bytes], str | None]:
        """Send a chunk, again and again; returns what stays undelivered, and why."""
        pauses = iter(_RETRY_SECONDS)
        while True:
            left, error = self._attempt(chunk)
            if error is None:
                return [], None
            if len(left) < len(chunk):
                pauses = iter(_RETRY_SECONDS)
            chunk = left
            passing = isinstance(error, _PASSING) and not isinstance(error, _FINAL)
            pause = next(pauses, None) if passing else None
            if pause is None:
                return chunk, self._explain(error)
            time.sleep(pause)

    def _attempt(self, chunk: list[bytes]) -> tuple[list[bytes], Exception | None]:
        """Send a chunk once; returns what was not acknowledged and the first error."""
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for item in chunk:
                    fields = _unpack(item)
                    pipeline.xadd(self._stream, fields, maxlen=self._maxlen, approximate=True)
                answers = pipeline.execute(raise_on_error=False)
        except (errors.RedisError, OSError) as error:
            return chunk, error
        pairs = zip(chunk, answers, strict=True)
        failed = [(item, answer) for item, answer in pairs if isinstance(answer, Exception)]
        return [item for item, _ in failed], failed[0][1] if failed else None


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
                self._events.put((track_id, shot.rank), _pack(event(face_record(shot, None), "final", jpeg)))
            if not ended.shots:
                record = missed_record(track_record(ended), self._source.location, self._calibration_id)
                self._events.put((track_id, 0), _pack(event(record, "final", None)))
        except OSError as error:
            reason = error.strerror or error
            raise SinkError(f"no room for waiting events in temporary files: {reason}") from error

    def commit(self, result: SourceResult) -> None:
        """Send the events. Raises SinkError saying how many were delivered and how many not."""
        self._sink._send(self._events, self._source)
        self._events.close()

    def discard(self) -> None:
        self._events.close()


def _connect(url: str) -> redis.Redis:
    """A client of `url`, not connected yet. Raises UsageError without the URL's secrets."""
    problem = _malformed(url)
    if problem is None:
        try:
            # Retries are ours, with their own bounds; RESP2 also works with servers before 6.
            client = redis.Redis.from_url(
                url,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=_CONNECT_SECONDS,
                socket_timeout=_ANSWER_SECONDS,
            )
            # An option that nobody knows shows only when a connection object is made; it connects nothing.
            pool = client.connection_pool
            pool.connection_class(**pool.connection_kwargs)
            return client
        except (ValueError, TypeError) as error:
            problem = scrub(str(error), url)
    # Raised outside the handler: a parser's error may quote the password and would hang on the chain.
    raise UsageError(
        f"--sink {redact_url(url)}: {problem}; use redis://[user:password@]HOST[:PORT][/DB] with special "
        "characters of the password percent-encoded"
    )


def _malformed(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "port or host is malformed"
    if parts.scheme == "unix":
        return None if parts.path else "the path of the socket is missing"
    if not parts.hostname:
        return "the host is missing"
    # redis-py silently takes database 0 for a path that is no number.
    database = parts.path.strip("/")
    if database and not database.isdigit():
        return "the database must be a number"
    return None


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


_FIELDS = ("id", "kind", "json", "jpeg")


def _pack(fields: Mapping[str, str | bytes]) -> bytes:
    """An event's fields in one piece; only the last, the JPEG, can hold a raw newline."""
    values = (fields[name] for name in _FIELDS if name in fields)
    return b"\n".join(value if isinstance(value, bytes) else value.encode() for value in values)


def _unpack(item: bytes) -> dict[Any, Any]:
    return dict(zip(_FIELDS, item.split(b"\n", len(_FIELDS) - 1), strict=False))
