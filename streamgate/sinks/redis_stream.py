"""Writes events to a Redis stream: connects, sends, and explains errors."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis import exceptions as errors
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamgate.errors import UsageError, one_line
from streamgate.redaction import redact_url, scrub
from streamgate.sinks.guarded_socket import GuardedSocket

STREAM = "streamgate:faces"
MAXLEN = 100_000
"""Approximate number of events that the stream keeps. With crops of 512 px and JPEG quality 92, an event has about 20
to 80 kB."""

_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
_SPOKEN = (
    ("CERTIFICATE_VERIFY_FAILED", "the server's certificate is not trusted, or is not for this host; give the issuer's "
     "certificate with ?ssl_ca_certs=FILE at the end of the URL"),
    ("WRONG_VERSION_NUMBER", "the server does not speak TLS on this port; use redis://"),
    ("RECORD_LAYER_FAILURE", "the server does not speak TLS on this port; use redis://"),
    ("WRONGTYPE", "the key {stream!r} is not a stream; remove or rename it"),
    ("max number of clients", "the server accepts no more clients; raise its maxclients or disconnect some"),
    ("MISCONF", "the server cannot save its data; check its log and its disk"),
    ("NOREPLICAS", "the server has too few replicas to accept writes; reconnect the missing replicas"),
    ("MOVED", "the server is part of a cluster and the key is on another node; use the address of that node"),
    ("protected mode", "the server accepts only local clients; set a password on it, or turn off protected-mode"),
)  # fmt: skip
"""Pairs of a text that occurs in server errors or TLS errors, and the message for the user. These pairs are
checked before those in `_REMEDIES`."""

_NONSENSE = "the reply does not follow the Redis protocol; check the address"
_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (errors.AuthenticationError, "the server rejects the user name or password; correct them in the URL"),
    (errors.AuthorizationError, "the server rejects the user name or password; correct them in the URL"),
    (errors.NoPermissionError, "this user may not write to the stream; allow XADD on its key (ACL SETUSER)"),
    (errors.OutOfMemoryError, "the server is out of memory; raise its maxmemory or trim the stream"),
    (errors.ReadOnlyError, "the server is a read-only replica; use the address of its primary"),
    (errors.MasterDownError, "the server is a replica that has lost its primary; use the address of the primary"),
    (errors.ClusterDownError, "the server's cluster is down; try again when it has recovered"),
    (errors.BusyLoadingError, "the server is still loading its data; try again in a moment"),
    (errors.InvalidResponse, _NONSENSE),
    (errors.TimeoutError, "the server does not respond in time; check the address and the server's load"),
    (errors.ConnectionError, "no connection; check that the server is running and that host and port are right"),
)
"""Pairs of an error type and the message for the user. Specific types come first, because some of them are subclasses
of the last type."""

_REPEATED = re.compile(r"^Command # \d+ .* of pipeline caused error: ", re.DOTALL)
_FINAL = (errors.AuthenticationError, errors.AuthorizationError)
_FINAL_WORDS = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "protected mode")
_PASSING = (
    errors.OutOfMemoryError,
    errors.ReadOnlyError,
    errors.ClusterDownError,
    errors.TryAgainError,
    errors.TimeoutError,
    errors.ConnectionError,
    OSError,
)
_PASSING_WORDS = ("MISCONF", "NOREPLICAS", "BUSY")
_ENTRY_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_LONGEST = 3600
"""Maximum timeout in the URL, seconds."""
_MAX_URL_LENGTH = 4096
_OPTIONS = frozenset(
    {"client_name", "db", "health_check_interval", "password", "socket_connect_timeout", "socket_keepalive",
     "socket_timeout", "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile",
     "ssl_check_hostname", "ssl_ciphers", "ssl_keyfile", "ssl_min_version", "ssl_password", "username"}
)  # fmt: skip
"""Accepted query options. The library's other options are refused: they take Python objects as values or change how
replies are parsed."""


class RedisStream:
    """Sends packed events with XADD. Messages never contain secrets of the URL. Thread-safe.

    Args:
        url: redis://[user:password@]host[:port][/db], rediss://... or unix://path[?db=N].
        stream: key of the Redis stream.
        maxlen: the stream is trimmed to about this many events (`MAXLEN ~`).
        option: the command line option that gave the URL, for messages.
        stopping: set to request a stop; a new event by default.

    Server errors are not raised: the exception is returned, together with the number of accepted events.
    Replies are limited in time and size (see `GuardedSocket`).

    Raises UsageError for a malformed URL; the connection is made on first use.
    """

    def __init__(
        self,
        url: str,
        *,
        stream: str = STREAM,
        maxlen: int = MAXLEN,
        option: str = "--sink",
        stopping: threading.Event | None = None,
    ) -> None:
        self.location = redact_url(url)
        self._url = url
        self._stream = stream
        self._maxlen = maxlen
        self.stopping = stopping or threading.Event()
        """Set to request a stop; after that, waiting for a reply takes at most two seconds."""
        self._client = _connect(url, option, self.stopping)
        self._multi: bool | None = None
        """Whether the user may use MULTI; None until checked."""

    def probe(self) -> Exception | None:
        """Check whether events can be sent; returns None, or the error if they cannot."""
        try:
            if self._client.ping() is not True:
                return errors.InvalidResponse("the reply to PING is not PONG")
            # This write never changes anything, because no entry has this id. It detects a read-only server or a key of
            # another type before any source is processed.
            self._client.xdel(self._stream, "0-0")
        except errors.NoPermissionError:
            return None  # a user who may run only XADD is fine
        except Exception as error:
            return error
        return None

    def attempt(self, chunk: Sequence[bytes]) -> tuple[int, Exception | None]:
        """Send a chunk once, in order.

        Returns how many events from the start of the chunk were accepted, and the error or None. The events are sent
        in one transaction (MULTI). The server accepts either all of the events or none, so that their order is
        kept even if one of them is rejected. If the user may not use MULTI, events are sent one by one.
        """
        taken = 0
        try:
            if len(chunk) > 1 and self._may_multi():
                with self._client.pipeline(transaction=True) as pipeline:
                    for item in chunk:
                        self._add(pipeline, item)
                    for answer in pipeline.execute():
                        _check_id(answer)
                return len(chunk), None
            for item in chunk:
                _check_id(self._add(self._client, item))
                taken += 1
        except Exception as error:
            if isinstance(error, errors.OutOfMemoryError):
                # The server keeps a buffer for each connection, and frees the buffer only when the connection closes.
                with suppress(Exception):
                    self._client.connection_pool.disconnect(inuse_connections=False)
            return taken, error
        return taken, None

    def _add(self, client: redis.Redis, item: bytes) -> Any:
        return client.xadd(self._stream, unpack(item), maxlen=self._maxlen, approximate=True)

    def _may_multi(self) -> bool:
        # This is checked beforehand: if MULTI were refused, the server would run the commands after it one by one.
        if self._multi is None:
            with self._client.client() as alone:
                try:
                    alone.execute_command("MULTI")
                    alone.execute_command("DISCARD")
                    self._multi = True
                except errors.NoPermissionError:
                    self._multi = False
        return self._multi

    def explain(self, error: Exception) -> str:
        """What went wrong and what to do, in one line."""
        # The server's message may contain the decoded user name and password.
        said = one_line(scrub(_said(error), self._url, unquote(self._url)), 200)
        said = said if said.strip("…") else f"an error without a message ({type(error).__name__})"
        remedy = next((remedy for words, remedy in _SPOKEN if words in said), None)
        remedy = remedy or next((remedy for kind, remedy in _REMEDIES if isinstance(error, kind)), None)
        if remedy is None and not isinstance(error, (errors.RedisError, OSError)):
            # The client library failed to parse the reply.
            remedy, said = _NONSENSE, f"{type(error).__name__}: {said}"
        if isinstance(error, errors.TimeoutError) and self._url.startswith("rediss:"):
            # A server without TLS mistakes the handshake for a command and waits for the end of that command.
            remedy = f"{remedy}; if it does not speak TLS on this port, use redis://"
        return f"{remedy.format(stream=self._stream)} ({said})" if remedy else said

    def close(self) -> None:
        """Close the connections; further use opens new ones."""
        with suppress(Exception):
            self._client.close()


def may_pass(error: Exception) -> bool:
    """Whether retrying may help without changing the client's settings."""
    said = _said(error)
    if isinstance(error, _FINAL) or any(words in said for words in _FINAL_WORDS):
        return False
    return isinstance(error, _PASSING) or said.startswith(_PASSING_WORDS)


def _check_id(answer: Any) -> None:
    """Raises InvalidResponse when `answer` is not a valid reply to XADD."""
    if not (isinstance(answer, (bytes, str)) and _ENTRY_ID.fullmatch(_text(answer))):
        raise errors.InvalidResponse("the reply to XADD is not an entry id")


def _text(answer: bytes | str) -> str:
    return answer if isinstance(answer, str) else answer.decode("latin-1")


def _said(error: Exception) -> str:
    """The server's message, without the command that the client library puts before it."""
    return _REPEATED.sub("", str(error))


def _connect(url: str, option: str, stopping: threading.Event) -> redis.Redis:
    """A client for `url`, not connected yet. Raises UsageError without the URL's secrets."""
    problem = _malformed(url)
    if problem is None:
        try:
            # The client's retries are turned off, because the callers of this module retry. RESP2 also works with
            # servers before version 6.
            client = redis.Redis.from_url(
                url,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=_CONNECT_SECONDS,
                socket_timeout=_ANSWER_SECONDS,
            )
            pool = client.connection_pool
            pool.connection_class = _guarded(pool.connection_class, stopping)
            # Invalid options are reported only when a connection object is created; creating it does not connect.
            made = pool.connection_class(**pool.connection_kwargs)
            limits = (made.socket_timeout, getattr(made, "socket_connect_timeout", _CONNECT_SECONDS))
            if not all(0 < seconds <= _LONGEST for seconds in limits):
                raise ValueError(f"timeouts must be above 0 and at most {_LONGEST} seconds")
            return client
        except ValueError as error:
            problem = one_line(scrub(str(error), url))
        except Exception as error:
            problem = f"an option after the ? has an invalid value ({type(error).__name__})"
    if "://" not in url and not url.startswith("unix:"):
        # Do not show the text itself: it may be a password.
        host = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}(:[0-9]{1,5})?", url)
        hint = f"redis://{url}{'' if host[1] else ':6379'}/0" if host else "redis://HOST:PORT/DB"
        raise UsageError(f"{option}: the address must start with redis://; use {hint}")
    # Raised outside the `except` block, because a parser's error may quote the password and would be chained to this
    # one.
    raise UsageError(
        f"{option} {redact_url(url)}: {problem}; use redis://[user:password@]HOST[:PORT][/DB] and percent-encode "
        "special characters in the password"
    )


def _guarded(kind: Any, stopping: threading.Event) -> Any:
    """A connection class like `kind` whose socket is a `GuardedSocket`."""

    def connect(connection: Any) -> Any:
        return GuardedSocket(kind._connect(connection), stopping)

    return type(kind.__name__, (kind,), {"_connect": connect})


def _malformed(url: str) -> str | None:
    if len(url) > _MAX_URL_LENGTH:
        return f"the URL has more than {_MAX_URL_LENGTH} characters"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "the host or port is malformed"
    for name in parse_qs(parts.query, keep_blank_values=True):
        if name not in _OPTIONS:
            return f"unknown option {one_line(name, 40)!r} after the ?"
    if parts.scheme == "unix":
        return None if parts.path else "the path of the socket is missing"
    if not parts.hostname:
        return "the host is missing"
    # redis-py silently uses database 0 for a path that is not a number.
    database = parts.path.strip("/")
    if database and not (database.isascii() and database.isdigit() and len(database) < 10):
        return "the database must be a number"
    return None


_FIELDS = ("id", "kind", "json", "jpeg")


def pack(fields: Mapping[str, str | bytes]) -> bytes:
    """An event's fields as one byte string; only the last field, the JPEG, can contain a raw newline."""
    values = (fields[name] for name in _FIELDS if name in fields)
    return b"\n".join(value if isinstance(value, bytes) else value.encode() for value in values)


def unpack(item: bytes) -> dict[Any, Any]:
    """The fields of a packed event, with values as bytes."""
    return dict(zip(_FIELDS, item.split(b"\n", len(_FIELDS) - 1), strict=False))
