"""A connection to an untrusted server: limits the time and size of a reply, and ends soon after a stop request.

A client library limits each wait for bytes, but not the whole reply: a server that sends a byte now and then would
block the client forever, and a server with an endless reply would fill the memory.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from redis import exceptions as errors

MAX_REPLY_BYTES = 1 << 20
"""Limit for the total size of all replies to one send; the reply to one command has at most a few hundred bytes."""
REPLY_TIMES = 2.0
"""Time limit for all replies to one send, as a multiple of the connection's timeout."""
STOP_LIMIT_S = 2.0
"""Time limit for all replies to one send once a stop has been requested."""
_SLICE_S = 0.2
"""Interval at which the stop request is checked."""


class GuardedSocket:
    """Replaces a connected socket (TLS or not) in a client library.

    Args:
        connection: the socket. Its timeout limits each wait; `REPLY_TIMES` times the timeout limits the whole reply.
        stopping: set to request a stop.

    Reading raises InvalidResponse if the reply is too large, and TimeoutError if it takes too long.
    """

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._socket = connection
        self._stopping = stopping
        self._timeout = connection.gettimeout()
        self._asked = time.monotonic()
        self._stopped: float | None = None
        self._received = 0

    def sendall(self, data: Any) -> None:
        """Send all of `data` within the timeout; everything that is received afterwards counts as the reply."""
        self._socket.settimeout(self._within())
        self._socket.sendall(data)
        self._asked, self._received = time.monotonic(), 0

    def recv(self, size: int) -> bytes:
        """The next bytes, at most `size`; empty at the end of the connection."""
        if self._timeout == 0:  # the client only checks whether data has arrived
            self._socket.settimeout(0)
            return self._counted(self._socket.recv(size))
        until = time.monotonic() + (self._timeout or float("inf"))
        while True:
            left = min(until, self._answered_by()) - time.monotonic()
            if left <= 0:
                raise errors.TimeoutError("the reply was not complete in time")
            self._socket.settimeout(min(left, _SLICE_S))
            try:
                return self._counted(self._socket.recv(size))
            except TimeoutError:
                continue

    def recv_into(self, buffer: Any) -> int:
        """Like `recv`, into a buffer; returns the number of bytes."""
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def settimeout(self, seconds: float | None) -> None:
        """Set the time limit for each wait that follows."""
        self._timeout = seconds
        self._socket.settimeout(seconds)

    def _within(self) -> float | None:
        if self._stopping.is_set():
            return min(STOP_LIMIT_S, self._timeout or STOP_LIMIT_S)
        return self._timeout

    def _answered_by(self) -> float:
        """Deadline for the complete reply (monotonic)."""
        limit = self._asked + REPLY_TIMES * self._timeout if self._timeout else float("inf")
        if self._stopping.is_set():
            self._stopped = self._stopped or time.monotonic()
            limit = min(limit, max(self._asked, self._stopped) + STOP_LIMIT_S)
        return limit

    def _counted(self, data: bytes) -> bytes:
        self._received += len(data)
        if self._received > MAX_REPLY_BYTES:
            raise errors.InvalidResponse(f"the reply is larger than {MAX_REPLY_BYTES >> 10} KiB")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)
