"""One Redis stream as events are written to it: connecting, sending, and what went wrong in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis import exceptions as errors
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamgate.errors import UsageError, redact_url, scrub

STREAM = "streamgate:faces"
MAXLEN = 100_000
"""Events that the stream keeps, about; at 512 px and quality 92 an event is some 20 to 80 kB."""

_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
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


class RedisStream:
    """Sends packed events with XADD. Messages never hold secrets of the URL. Thread-safe.

    Args:
        url: redis://[user:password@]host[:port][/db], rediss://... or unix://path[?db=N].
        stream: key of the Redis stream.
        maxlen: the stream is trimmed to about this many events (`MAXLEN ~`).
        option: the option that brought the URL, for messages.

    Raises UsageError for a malformed URL; nothing is connected before something is asked.
    """

    def __init__(self, url: str, *, stream: str = STREAM, maxlen: int = MAXLEN, option: str = "--sink") -> None:
        self.location = redact_url(url)
        self._url = url
        self._stream = stream
        self._maxlen = maxlen
        self._client = _connect(url, option)

    def probe(self) -> str | None:
        """One line about why events could not be sent; None when they can."""
        try:
            self._client.ping()
            # A write that never changes anything (no entry has this id): it meets a read-only
            # server or a key of another type now and not after the first source's work.
            self._client.xdel(self._stream, "0-0")
        except errors.NoPermissionError:
            return None  # a user allowed nothing but XADD is fine
        except (errors.RedisError, OSError) as error:
            return f"cannot use {self.location}: {self.explain(error)}"
        return None

    def attempt(self, chunk: Sequence[bytes], *, together: bool = False) -> tuple[list[bytes], Exception | None]:
        """Send a chunk once; returns what was not acknowledged and the first error.

        With `together` all of it is taken or none (MULTI), so that order survives a server that refuses some.
        """
        try:
            with self._client.pipeline(transaction=together and len(chunk) > 1) as pipeline:
                for item in chunk:
                    pipeline.xadd(self._stream, unpack(item), maxlen=self._maxlen, approximate=True)
                answers = pipeline.execute(raise_on_error=together)
        except (errors.RedisError, OSError) as error:
            return list(chunk), error
        pairs = zip(chunk, answers, strict=True)
        failed = [(item, answer) for item, answer in pairs if isinstance(answer, Exception)]
        return [item for item, _ in failed], failed[0][1] if failed else None

    def explain(self, error: Exception) -> str:
        """What went wrong and what to do, in one line."""
        remedy = next((remedy for kind, remedy in _REMEDIES if isinstance(error, kind)), None)
        # The server knows user and password decoded.
        said = " ".join(scrub(str(error), self._url, unquote(self._url)).split())[:200]
        if "WRONGTYPE" in said:
            remedy = f"the key {self._stream!r} is not a stream; remove or rename it"
        return f"{remedy} ({said})" if remedy else said

    def close(self) -> None:
        """Let go of the connections; further use opens new ones."""
        self._client.close()


def may_pass(error: Exception) -> bool:
    """Whether trying again may help without anybody's hand."""
    return isinstance(error, _PASSING) and not isinstance(error, _FINAL)


def _connect(url: str, option: str) -> redis.Redis:
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
        f"{option} {redact_url(url)}: {problem}; use redis://[user:password@]HOST[:PORT][/DB] with special "
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


_FIELDS = ("id", "kind", "json", "jpeg")


def pack(fields: Mapping[str, str | bytes]) -> bytes:
    """An event's fields in one piece; only the last, the JPEG, can hold a raw newline."""
    values = (fields[name] for name in _FIELDS if name in fields)
    return b"\n".join(value if isinstance(value, bytes) else value.encode() for value in values)


def unpack(item: bytes) -> dict[Any, Any]:
    """The fields of a packed event; values are bytes."""
    return dict(zip(_FIELDS, item.split(b"\n", len(_FIELDS) - 1), strict=False))
