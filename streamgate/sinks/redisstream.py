"""One Redis stream as events are written to it: connecting, sending, and what went wrong in plain words."""

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

from streamgate.errors import UsageError, one_line, redact_url, scrub
from streamgate.sinks.guardedsocket import GuardedSocket

STREAM = "streamgate:faces"
MAXLEN = 100_000
"""Events that the stream keeps, about; at 512 px and quality 92 an event is some 20 to 80 kB."""

_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
_SPOKEN = (
    ("CERTIFICATE_VERIFY_FAILED", "the server's certificate is not trusted, or is not for this host; name the one that "
     "signed it with ?ssl_ca_certs=FILE at the end of the URL"),
    ("WRONG_VERSION_NUMBER", "the server does not speak TLS at this port; write redis://"),
    ("RECORD_LAYER_FAILURE", "the server does not speak TLS at this port; write redis://"),
    ("WRONGTYPE", "the key {stream!r} is not a stream; remove or rename it"),
    ("max number of clients", "the server takes no more clients; raise its maxclients or end some"),
    ("MISCONF", "the server cannot save its data; look at its log and its disk"),
    ("NOREPLICAS", "the server has too few replicas to take writes; bring them back"),
    ("MOVED", "the server is part of a cluster and the key lies elsewhere; give the address of the node it names"),
    ("protected mode", "the server only takes clients of its own machine; give it a password, or end protected-mode"),
)  # fmt: skip
"""What is known by the words of the server or of TLS alone; looked at before the kind of error."""

_NONSENSE = "what answers there does not speak as Redis does; check the address"
_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (errors.AuthenticationError, "the server refuses user or password; correct them in the URL"),
    (errors.AuthorizationError, "the server refuses user or password; correct them in the URL"),
    (errors.NoPermissionError, "this user may not do that; allow it XADD on the stream (ACL SETUSER)"),
    (errors.OutOfMemoryError, "the server is out of memory; raise its maxmemory or trim the stream"),
    (errors.ReadOnlyError, "the server is a read-only replica; give the address of its primary"),
    (errors.MasterDownError, "the server is a replica that has lost its primary; give the address of the primary"),
    (errors.ClusterDownError, "the server's cluster is down; try again when it is whole"),
    (errors.BusyLoadingError, "the server is still loading its data; try again in a moment"),
    (errors.InvalidResponse, _NONSENSE),
    (errors.TimeoutError, "the server does not answer in time; check the address and its load"),
    (errors.ConnectionError, "no connection; check that the server runs and that host and port are right"),
)
"""Most special first: some of these derive from the last."""

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
"""Seconds of a time-out in the URL."""
_MAX_URL_LENGTH = 4096
_OPTIONS = frozenset(
    {"client_name", "db", "health_check_interval", "password", "socket_connect_timeout", "socket_keepalive",
     "socket_timeout", "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile",
     "ssl_check_hostname", "ssl_ciphers", "ssl_keyfile", "ssl_min_version", "ssl_password", "username"}
)  # fmt: skip
"""Behind the ?. The library takes others too: objects of Python's, and those that change how answers are read."""


class RedisStream:
    """Sends packed events with XADD. Messages never hold secrets of the URL. Thread-safe.

    Args:
        url: redis://[user:password@]host[:port][/db], rediss://... or unix://path[?db=N].
        stream: key of the Redis stream.
        maxlen: the stream is trimmed to about this many events (`MAXLEN ~`).
        option: the option that brought the URL, for messages.
        hurry: the event of that name, one of its own by default.

    Whatever the server answers is a value here, a number of events taken and an exception of whichever kind: nothing
    it sends may raise. An answer has bounds in time and size, see `GuardedSocket`.

    Raises UsageError for a malformed URL; nothing is connected before something is asked.
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
        """Set once we are to end: then no answer is waited for longer than two seconds."""
        self._client = _connect(url, option, self.stopping)
        self._multi: bool | None = None
        """Whether the user may MULTI; None until it was asked."""

    def probe(self) -> Exception | None:
        """Why events could not be sent now; None when they can."""
        try:
            if self._client.ping() is not True:
                return errors.InvalidResponse("PING is not answered by PONG")
            # A write that never changes anything (no entry has this id): it meets a read-only
            # server or a key of another type now and not after the first source's work.
            self._client.xdel(self._stream, "0-0")
        except errors.NoPermissionError:
            return None  # a user allowed nothing but XADD is fine
        except Exception as error:
            return error
        return None

    def attempt(self, chunk: Sequence[bytes]) -> tuple[int, Exception | None]:
        """Send a chunk once, in order; returns how many of its first events were taken, and why no more were.

        It is all of them or none (MULTI): order survives a server that refuses some. Where the user may not MULTI
        they go one by one.
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
                # What was sent is held for the connection, and counts as the server's memory while it is open.
                with suppress(Exception):
                    self._client.connection_pool.disconnect(inuse_connections=False)
            return taken, error
        return taken, None

    def _add(self, client: redis.Redis, item: bytes) -> Any:
        return client.xadd(self._stream, unpack(item), maxlen=self._maxlen, approximate=True)

    def _may_multi(self) -> bool:
        # Found out beforehand: without MULTI the server would run the commands behind it one by one.
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
        # The server knows user and password decoded.
        said = one_line(scrub(_said(error), self._url, unquote(self._url)), 200)
        said = said if said.strip("…") else f"an error without words ({type(error).__name__})"
        remedy = next((remedy for words, remedy in _SPOKEN if words in said), None)
        remedy = remedy or next((remedy for kind, remedy in _REMEDIES if isinstance(error, kind)), None)
        if remedy is None and not isinstance(error, (errors.RedisError, OSError)):
            # The client itself stumbled over it.
            remedy, said = _NONSENSE, f"{type(error).__name__}: {said}"
        if isinstance(error, errors.TimeoutError) and self._url.startswith("rediss:"):
            # A plain server waits for the end of what it takes for a command.
            remedy = f"{remedy}, or it does not speak TLS at this port: write redis://"
        return f"{remedy.format(stream=self._stream)} ({said})" if remedy else said

    def close(self) -> None:
        """Let go of the connections; further use opens new ones."""
        with suppress(Exception):
            self._client.close()


def may_pass(error: Exception) -> bool:
    """Whether trying again may help without anybody's hand at the client."""
    said = _said(error)
    if isinstance(error, _FINAL) or any(words in said for words in _FINAL_WORDS):
        return False
    return isinstance(error, _PASSING) or said.startswith(_PASSING_WORDS)


def _check_id(answer: Any) -> None:
    """Raises InvalidResponse when `answer` is not what Redis says to an XADD."""
    if not (isinstance(answer, (bytes, str)) and _ENTRY_ID.fullmatch(_text(answer))):
        raise errors.InvalidResponse("XADD is not answered by an entry's id")


def _text(answer: bytes | str) -> str:
    return answer if isinstance(answer, str) else answer.decode("latin-1")


def _said(error: Exception) -> str:
    """The server's words, without the command that the client repeats before them."""
    return _REPEATED.sub("", str(error))


def _connect(url: str, option: str, stopping: threading.Event) -> redis.Redis:
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
            pool = client.connection_pool
            pool.connection_class = _guarded(pool.connection_class, stopping)
            # What is wrong with an option shows only when a connection object is made; it connects nothing.
            made = pool.connection_class(**pool.connection_kwargs)
            limits = (made.socket_timeout, getattr(made, "socket_connect_timeout", _CONNECT_SECONDS))
            if not all(0 < seconds <= _LONGEST for seconds in limits):
                raise ValueError(f"time-outs are above 0 and at most {_LONGEST} seconds")
            return client
        except ValueError as error:
            problem = one_line(scrub(str(error), url))
        except Exception as error:
            problem = f"an option behind the ? has no such value ({type(error).__name__})"
    if "://" not in url and not url.startswith("unix:"):
        # Not with the text itself: it may be a password.
        host = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}(:[0-9]{1,5})?", url)
        hint = f"redis://{url}{'' if host[1] else ':6379'}/0" if host else "redis://HOST:PORT/DB"
        raise UsageError(f"{option}: an address begins with redis://; write {hint}")
    # Raised outside the handler: a parser's error may quote the password and would hang on the chain.
    raise UsageError(
        f"{option} {redact_url(url)}: {problem}; use redis://[user:password@]HOST[:PORT][/DB] with special "
        "characters of the password percent-encoded"
    )


def _guarded(kind: Any, stopping: threading.Event) -> Any:
    """A connection class like `kind` whose socket is a `GuardedSocket`."""

    def connect(connection: Any) -> Any:
        return GuardedSocket(kind._connect(connection), stopping)

    return type(kind.__name__, (kind,), {"_connect": connect})


def _malformed(url: str) -> str | None:
    if len(url) > _MAX_URL_LENGTH:
        return f"it has more than {_MAX_URL_LENGTH} letters"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "port or host is malformed"
    for name in parse_qs(parts.query, keep_blank_values=True):
        if name not in _OPTIONS:
            return f"there is no option {one_line(name, 40)!r} behind the ?"
    if parts.scheme == "unix":
        return None if parts.path else "the path of the socket is missing"
    if not parts.hostname:
        return "the host is missing"
    # redis-py silently takes database 0 for a path that is no number.
    database = parts.path.strip("/")
    if database and not (database.isascii() and database.isdigit() and len(database) < 10):
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
