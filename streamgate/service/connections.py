"""Limits HTTP connections: their number, the time for sending a request, and the time for reading a response.

uvicorn waits forever for the rest of a request, and asyncio logs a traceback for each connection that it cannot
accept. Idle or slow peers must not exhaust the descriptors of a service that watches cameras, flood its log or block
its page.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from streamgate.service.auth import network_of
from streamgate.service.state import ServiceState

REQUEST_S = 15.0
"""Maximum time for sending a complete request, head and body, after connecting or after the previous response."""
TAKEN_S = 30.0
"""Maximum time for which the send buffer to a peer may stay non-empty because the peer does not read."""
MOST = 1536
"""Maximum number of open connections, if the limit of open files allows it."""
BURST = 16
"""Number of connections that are accepted at once, before the first of them is handled."""
_SWEEP_S = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_PAUSE_S = 0.05


def connection_limits() -> tuple[int, int]:
    """The maximum number of open connections, and the highest descriptor that a connection may have.

    The number is at most half of this process's limit of open files. The last quarter of the descriptors is reserved
    for cameras and files.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 1 << 20 if soft == resource.RLIM_INFINITY else soft
    return max(8, min(MOST, files // 2)), files - max(32, files // 4)


class Connections:
    """The open connections of one server; used only in its event loop.

    When there are too many connections, the oldest one whose peer has not sent a whole request is closed. If there is
    no such connection, the oldest one whose peer does not read the response is closed; if there is none of these
    either, the new connection is closed. Therefore, a peer that sends its request immediately is served, however many
    idle connections there are. A connection is never closed to make room for another one while its request is being
    answered and its peer reads the response.

    Args:
        state: its metrics count the open and the closed connections.
        log: called with one line whenever there are too many connections; the calls are not rate-limited.
    """

    def __init__(self, state: ServiceState, log: Callable[[str], None]) -> None:
        self._closed = state.closed
        for why in ("late", "behind", "crowded"):
            self._closed.labels(why)
        state.connections.set_function(self.__len__)
        self._most, self._last_descriptor = connection_limits()
        self.most_each = self._most // 2
        """Maximum number of connections per IPv4 address or IPv6 /64 network."""
        self._log = log
        self._open: dict[Any, None] = {}
        """The protocols of the open connections, oldest first."""

    def __len__(self) -> int:
        return len(self._open)

    def protocol(self) -> type[H11Protocol]:
        """The protocol class for uvicorn (`uvicorn.Config(http=...)`)."""
        connections = self

        class BoundedProtocol(H11Protocol):
            network = ""
            since = 0.0
            """When the time allowed for the current request began (monotonic)."""
            behind: float | None = None
            """When the send buffer was first seen to be non-empty (monotonic); None while it is empty."""

            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                connections._enter(self)

            def connection_lost(self, exc: Exception | None) -> None:
                connections._open.pop(self, None)
                super().connection_lost(exc)

            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                if self.cycle is not None and not self.cycle.response_complete and self.conn.trailing_data[0]:
                    # Browsers do not pipeline requests. Close the connection after this response; otherwise, a hundred
                    # pipelined requests would keep it open until all of them are answered.
                    self.cycle.keep_alive = False

            def on_response_complete(self) -> None:
                self.since = time.monotonic()
                super().on_response_complete()

        return BoundedProtocol

    async def watch(self) -> None:
        """Run until cancelled, and close connections that take too long."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._sweep(time.monotonic())

    def _enter(self, protocol: Any) -> None:
        protocol.network = network_of(protocol.client[0] if protocol.client else "")
        protocol.since = time.monotonic()
        of_it = [one for one in self._open if one.network == protocol.network]
        descriptor = protocol.transport.get_extra_info("socket").fileno()
        self._open[protocol] = None
        if len(of_it) >= self.most_each:
            self._make_room(of_it, protocol)
        elif len(self._open) > self._most or descriptor > self._last_descriptor:
            self._make_room(list(self._open), protocol)

    def _make_room(self, among: list[Any], newest: Any) -> None:
        owing = (one for one in among if _owes(one))
        lingering = (one for one in among if one.behind is not None)
        self._end(next(owing, None) or next(lingering, newest), "crowded")
        self._log(f"too many connections, so one was closed; {len(self._open)} are open")

    def _sweep(self, now: float) -> None:
        for protocol in list(self._open):
            if not protocol.transport.get_write_buffer_size():
                protocol.behind = None
            elif protocol.behind is None:
                protocol.behind = now
            if protocol.behind is not None and now - protocol.behind > TAKEN_S:
                self._end(protocol, "behind")
            elif _owes(protocol) and now - protocol.since > REQUEST_S:
                self._end(protocol, "late")

    def _end(self, protocol: Any, why: str) -> None:
        self._open.pop(protocol, None)
        self._closed.labels(why).inc()
        protocol.transport.abort()


def _owes(protocol: Any) -> bool:
    """Whether the peer has not sent its whole request yet."""
    return protocol.conn.their_state in (h11.IDLE, h11.SEND_BODY)


class Listener(socket.socket):
    """A listening socket whose `accept` pauses and returns no connection while no descriptors are left."""

    log: Callable[[str], None] = staticmethod(lambda line: None)
    """Called with one line each time that no descriptor is left; the calls are not rate-limited."""

    def listen(self, backlog: int = 0) -> None:
        """Listen with the backlog of the first call, because asyncio calls `listen` again with the number of
        connections that it accepts at once."""
        self._backlog = getattr(self, "_backlog", backlog)
        super().listen(self._backlog)

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
        self.log("no more files can be opened, so new connections have to wait; raise the file limit (ulimit -n)")
        time.sleep(_EXHAUSTED_PAUSE_S)
        raise BlockingIOError(errno.EAGAIN, "no descriptor is left")
