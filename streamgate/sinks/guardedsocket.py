"""A connection to a server that may be anything: bounded time for its answer, bounded size, and an end when we stop.

A client library bounds each wait for bytes, not the answer: a server that sends one byte now and then holds it for
ever, and one that never ends its answer fills the memory.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from redis import exceptions as errors

MAX_REPLY_BYTES = 1 << 20
"""Of all answers to what was sent at once, which are some hundred bytes a command."""
REPLY_TIMES = 2.0
"""All answers must be there within so many times the time-out of the connection."""
STOP_LIMIT_S = 2.0
"""Once we are to end, answers must be there within this."""
_SLICE_S = 0.2
"""Between two looks at whether we are to end."""


class GuardedSocket:
    """Stands for a connected socket (TLS or not) in a client library.

    Args:
        connection: the socket. Its time-out bounds each wait; times `REPLY_TIMES` the whole answer.
        hurry: set once we are to end.

    Reading raises InvalidResponse for an answer that is too large, TimeoutError for one that takes too long.
    """

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._socket = connection
        self._stopping = stopping
        self._timeout = connection.gettimeout()
        self._asked = time.monotonic()
        self._stopped: float | None = None
        self._received = 0

    def sendall(self, data: Any) -> None:
        """Send all of `data` within the time-out: what comes from here on answers it."""
        self._socket.settimeout(self._within())
        self._socket.sendall(data)
        self._asked, self._received = time.monotonic(), 0

    def recv(self, size: int) -> bytes:
        """The next bytes, at most `size`; empty at the end."""
        if self._timeout == 0:  # a look whether there is something
            self._socket.settimeout(0)
            return self._counted(self._socket.recv(size))
        until = time.monotonic() + (self._timeout or float("inf"))
        while True:
            left = min(until, self._answered_by()) - time.monotonic()
            if left <= 0:
                raise errors.TimeoutError("no whole answer in time")
            self._socket.settimeout(min(left, _SLICE_S))
            try:
                return self._counted(self._socket.recv(size))
            except TimeoutError:
                continue

    def recv_into(self, buffer: Any) -> int:
        """As `recv`, into a buffer; the number of bytes."""
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def settimeout(self, seconds: float | None) -> None:
        """The longest wait for bytes from here on."""
        self._timeout = seconds
        self._socket.settimeout(seconds)

    def _within(self) -> float | None:
        if self._stopping.is_set():
            return min(STOP_LIMIT_S, self._timeout or STOP_LIMIT_S)
        return self._timeout

    def _answered_by(self) -> float:
        """When the answer must be there (monotonic)."""
        limit = self._asked + REPLY_TIMES * self._timeout if self._timeout else float("inf")
        if self._stopping.is_set():
            self._stopped = self._stopped or time.monotonic()
            limit = min(limit, max(self._asked, self._stopped) + STOP_LIMIT_S)
        return limit

    def _counted(self, data: bytes) -> bytes:
        self._received += len(data)
        if self._received > MAX_REPLY_BYTES:
            raise errors.InvalidResponse(f"an answer of more than {MAX_REPLY_BYTES >> 10} KiB")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)
