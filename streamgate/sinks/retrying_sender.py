"""Delivery to a Redis stream within bounds: in order, tried again while the fault may pass, counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from streamgate.sinks.redisstream import RedisStream, may_pass

RETRY_SECONDS = 30.0
"""How long a server that takes nothing is tried by default: a restart or a failover is over by then."""

_CHUNK_EVENTS = 64
_CHUNK_BYTES = 4 << 20
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Between attempts that bring nothing across; the last one again and again."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """How many events a server took, and why no more; `problem` None says that all arrived."""

    sent: int
    problem: str | None


class RetryingSender:
    """Sends packed events to `stream`; at least once, since an answer may be lost. Thread-safe.

    Once `stream.stopping` is set nothing is waited for: what the server does not take at once stays undelivered.

    Args:
        retry_seconds: a fault that may pass is tried again until so long nothing was taken. The time-outs of the
            connection itself come on top.
        say: told when waiting begins, a line.
    """

    def __init__(
        self,
        stream: RedisStream,
        *,
        retry_seconds: float = RETRY_SECONDS,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._stream = stream
        self._retry_seconds = retry_seconds
        self._stopping = stream.stopping
        self._warn = warn

    def reach(self) -> str | None:
        """Wait until events could be sent; the reason in one line when they cannot."""
        waiting = self._backoff(self._retry_seconds)
        while (error := self._stream.probe()) is not None:
            if not waiting.after(error):
                return self._stream.explain(error)
        return None

    def deliver(self, events: Iterable[bytes], *, patient: bool = True) -> SendResult:
        """Send `events` in their order; not `patient` means that no fault is waited for.

        A fault of reading them (OSError) ends the delivery too.
        """
        waiting = self._backoff(self._retry_seconds if patient else 0.0)
        reader = _Chunks(iter(events))
        sent, most = 0, _CHUNK_EVENTS
        while True:
            try:
                chunk = reader.fill()
            except OSError as error:
                return SendResult(sent, f"waiting events cannot be read again: {error.strerror or error}")
            if not chunk:
                return SendResult(sent, None)
            taken, problem = self._stream.attempt(chunk[:most])
            sent += taken
            reader.drop(taken)
            if taken:
                waiting.start_over()
            if problem is None:
                most = min(2 * most, _CHUNK_EVENTS)
                continue
            # What a slow line or a full server does not take as a whole may go through in parts.
            most = max(1, most // 8)
            if not waiting.after(problem):
                return SendResult(sent, self._stream.explain(problem))

    def _backoff(self, seconds: float) -> _Backoff:
        def said(error: Exception) -> None:
            self._warn(f"{self._stream.location}: {self._stream.explain(error)}; trying again for up to {seconds:g} s")

        return _Backoff(seconds, self._stopping, said)


class _Backoff:
    """Pauses between attempts, until too long nothing went through."""

    def __init__(self, seconds: float, stopping: threading.Event, warn: Callable[[Exception], None]) -> None:
        self._seconds = seconds
        self._stopping = stopping
        self._warn = warn
        self._said = False
        self.start_over()

    def start_over(self) -> None:
        self._since = time.monotonic()
        self._pauses = iter(_PAUSES)

    def after(self, error: Exception) -> bool:
        """Wait a while after a failed attempt; False when there is no use in another one."""
        left = self._since + self._seconds - time.monotonic()
        if left <= 0 or not may_pass(error) or self._stopping.is_set():
            return False
        if not self._said:
            self._said = True
            self._warn(error)
        self._stopping.wait(min(next(self._pauses, _PAUSES[-1]), left))
        return True


class _Chunks:
    """The next events of an iterator, as many as go together; those not taken stay in front."""

    def __init__(self, events: Iterator[bytes]) -> None:
        self._events = events
        self._waiting: list[bytes] = []
        self._left_over: bytes | None = None

    def fill(self) -> list[bytes]:
        size = sum(map(len, self._waiting))
        while len(self._waiting) < _CHUNK_EVENTS:
            item = self._left_over if self._left_over is not None else next(self._events, None)
            self._left_over = None
            if item is None:
                break
            if self._waiting and size + len(item) > _CHUNK_BYTES:
                self._left_over = item
                break
            self._waiting.append(item)
            size += len(item)
        return self._waiting

    def drop(self, count: int) -> None:
        del self._waiting[:count]
