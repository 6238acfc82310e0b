"""Delivery to a Redis stream within bounds: in order, tried again while the fault may pass, counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from streamgate.sinks.redisstream import RedisStream, may_pass

RETRY_SECONDS = 30.0
"""How long a server that takes nothing is tried by default: a restart or a failover is over by then."""
CHUNK_EVENTS = 64
CHUNK_BYTES = 4 << 20
"""Events go together up to these bounds."""
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Between attempts that bring nothing across; the last one again and again."""


def send_in_order(
    stream: RedisStream,
    peek: Callable[[int], Sequence[bytes]],
    done: Callable[[int], None],
    retry: Callable[[Exception, int], bool],
) -> Exception | None:
    """Send packed events in their order until there are none left; why not, where `retry` gave up.

    Args:
        peek: the next events, at most so many; none ends it.
        done: so many of those were taken.
        retry: called after a failed attempt, with how many had failed in a row before it; it pauses and returns True,
            or False to give up.
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
        # What a slow line or a full server does not take as a whole may go through in parts.
        most = max(1, most // 8)
        if not retry(error, failures):
            return error
        failures += 1
    return None


def pause(stopping: threading.Event, failures: int, longest: float = float("inf")) -> None:
    """Wait before the next attempt, longer the more have failed in a row; at most `longest` seconds."""
    stopping.wait(min(_PAUSES[min(failures, len(_PAUSES) - 1)], longest))


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
        self._warn = warn

    def reach(self) -> str | None:
        """Wait until events could be sent; the reason in one line when they cannot."""
        patience, failures = _Backoff(self._stream, self._retry_seconds, self._warn), 0
        while (error := self._stream.probe()) is not None:
            if not patience.retry(error, failures):
                return self._stream.explain(error)
            failures += 1
        return None

    def deliver(self, events: Iterable[bytes], *, patient: bool = True) -> SendResult:
        """Send `events` in their order; not `patient` means that no fault is waited for.

        A fault of reading them (OSError) ends the delivery too.
        """
        patience = _Backoff(self._stream, self._retry_seconds if patient else 0.0, self._warn)
        waiting = _Waiting(iter(events))

        def done(count: int) -> None:
            waiting.drop(count)
            patience.start_over()

        error = send_in_order(self._stream, waiting.peek, done, patience.retry)
        return SendResult(waiting.dropped, waiting.problem if error is None else self._stream.explain(error))


class _Backoff:
    """Pauses between attempts, until too long nothing went through."""

    def __init__(self, stream: RedisStream, seconds: float, warn: Callable[[str], None]) -> None:
        self._stream = stream
        self._seconds = seconds
        self._warn = warn
        self._said = False
        self.start_over()

    def start_over(self) -> None:
        self._since = time.monotonic()

    def retry(self, error: Exception, failures: int) -> bool:
        """Wait a while after a failed attempt; False when there is no use in another one."""
        left = self._since + self._seconds - time.monotonic()
        if left <= 0 or not may_pass(error) or self._stream.stopping.is_set():
            return False
        if not self._said:
            self._said = True
            why = self._stream.explain(error)
            self._warn(f"{self._stream.location}: {why}; trying again for up to {self._seconds:g} s")
        pause(self._stream.stopping, failures, left)
        return True


class _Waiting:
    """The next events of an iterator, as many as go together; those not taken stay in front."""

    def __init__(self, events: Iterator[bytes]) -> None:
        self.dropped = 0
        self.problem: str | None = None
        """Why the rest cannot be read."""
        self._events = events
        self._waiting: list[bytes] = []
        self._left_over: bytes | None = None

    def peek(self, most: int) -> list[bytes]:
        try:
            self._fill()
        except OSError as error:
            self.problem = f"waiting events cannot be read again: {error.strerror or error}"
            return []
        return self._waiting[:most]

    def drop(self, count: int) -> None:
        del self._waiting[:count]
        self.dropped += count

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
