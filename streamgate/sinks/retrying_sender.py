"""Delivers events to a Redis stream in order, and retries after transient errors for a limited time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from streamgate.sinks.redis_stream import RedisStream, may_pass

RETRY_SECONDS = 30.0
"""Default time for which sending is retried while the server accepts nothing: enough for a restart or a failover."""
CHUNK_EVENTS = 64
CHUNK_BYTES = 4 << 20
"""Limits for the number and total size of the events that are sent together."""
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses between failed attempts, in seconds; the last one is repeated."""


def send_in_order(
    stream: RedisStream,
    peek: Callable[[int], Sequence[bytes]],
    done: Callable[[int], None],
    retry: Callable[[Exception, int], bool],
) -> Exception | None:
    """Send packed events in order until none are left; returns None, or the last error if `retry` returned False.

    Args:
        peek: returns the next events, at most the given number; an empty sequence ends the delivery.
        done: called after an attempt; its argument is how many of these events, counted from the first, were accepted.
        retry: called after a failed attempt with the error and the number of consecutive failures before it; pauses
            and returns True, or returns False to end the delivery.
    """
    failures, most = 0, CHUNK_EVENTS
    while chunk := peek(most):
        taken, error = stream.attempt(chunk)
        if taken:
            done(taken)
            failures = 0
        if error is None:
            most = min(2 * most, CHUNK_EVENTS)
            continue
        # If a chunk fails because of a slow connection or a full server, smaller parts of it may still succeed.
        most = max(1, most // 8)
        if not retry(error, failures):
            return error
        failures += 1
    return None


def pause(stopping: threading.Event, failures: int, longest: float = float("inf")) -> None:
    """Wait before the next attempt, longer after more consecutive failures, but at most `longest` seconds."""
    stopping.wait(min(_PAUSES[min(failures, len(_PAUSES) - 1)], longest))


def reach(
    stream: RedisStream, *, retry_seconds: float = RETRY_SECONDS, warn: Callable[[str], None] = lambda line: None
) -> str | None:
    """Wait until events can be sent, retrying as `deliver` does; returns None, or the reason why they cannot be
    sent."""
    delivery, failures = _Delivery(stream, (), retry_seconds, warn), 0
    while (error := stream.probe()) is not None:
        if not delivery.retry(error, failures):
            return stream.explain(error)
        failures += 1
    return None


def deliver(
    stream: RedisStream,
    events: Iterable[bytes],
    *,
    retry_seconds: float = RETRY_SECONDS,
    warn: Callable[[str], None] = lambda line: None,
) -> tuple[int, str | None]:
    """Send packed events in order, each at least once: after a lost reply, events are sent again. Thread-safe.

    Returns the number of events that the server accepted, and the reason why events remain undelivered, or None if all
    were delivered. An error while reading the events (OSError) also ends the delivery. Once `stream.stopping` is set,
    there are no retries: events that the server does not accept at the first attempt stay undelivered.

    Args:
        retry_seconds: transient errors are retried until the server has accepted nothing for this long, plus the
            timeouts of the connection itself; with 0, there is only one attempt.
        warn: called with a one-line message when retrying starts.
    """
    delivery = _Delivery(stream, events, retry_seconds, warn)
    error = send_in_order(stream, delivery.peek, delivery.drop, delivery.retry)
    return delivery.sent, delivery.problem if error is None else stream.explain(error)


class _Delivery:
    """Buffers the next events of an iterator, up to one chunk; events that were not accepted stay at the front.

    It pauses between failed attempts, and stops retrying when nothing has been accepted for `retry_seconds`.
    """

    def __init__(
        self, stream: RedisStream, events: Iterable[bytes], retry_seconds: float, warn: Callable[[str], None]
    ) -> None:
        self.sent = 0
        self.problem: str | None = None
        """Why the remaining events cannot be read; None if they can be read."""
        self._stream = stream
        self._events = iter(events)
        self._retry_seconds = retry_seconds
        self._warn = warn
        self._said = False
        self._since = time.monotonic()
        self._waiting: list[bytes] = []
        self._left_over: bytes | None = None

    def peek(self, most: int) -> list[bytes]:
        try:
            self._fill()
        except OSError as error:
            self.problem = f"the waiting events cannot be read back: {error.strerror or error}"
            return []
        return self._waiting[:most]

    def drop(self, count: int) -> None:
        del self._waiting[:count]
        self.sent += count
        self._since = time.monotonic()

    def retry(self, error: Exception, failures: int) -> bool:
        """Pause after a failed attempt; returns False, without a pause, if there should be no further attempt."""
        left = self._since + self._retry_seconds - time.monotonic()
        if left <= 0 or not may_pass(error) or self._stream.stopping.is_set():
            return False
        if not self._said:
            self._said = True
            why = self._stream.explain(error)
            self._warn(f"{self._stream.location}: {why}; retrying for up to {self._retry_seconds:g} s")
        pause(self._stream.stopping, failures, left)
        return True

    def _fill(self) -> None:
        size = sum(map(len, self._waiting))
        while len(self._waiting) < CHUNK_EVENTS:
            item = self._left_over if self._left_over is not None else next(self._events, None)
            self._left_over = None
            if item is None:
                break
            if self._waiting and size + len(item) > CHUNK_BYTES:
                self._left_over = item
                break
            self._waiting.append(item)
            size += len(item)
