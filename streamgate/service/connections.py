"""Bounds on the connections of the HTTP side: how many, how long for a request, how long without taking an answer.

uvicorn waits for ever for the rest of a request, and asyncio logs a page of text for each connection that it cannot
accept. A service that watches cameras must not lose its descriptors, its log or its page to peers who do nothing.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from streamgate.service.auth import network_of
from streamgate.service.meters import Counts, Metric, Sample

REQUEST_S = 15.0
"""Within this a request is there, head and body, from the connection's beginning or the end of the answer before."""
TAKEN_S = 30.0
"""A peer has taken all that was sent to it at least once within this."""
MOST = 1536
"""Connections at once, where the limit of open files allows it."""
BURST = 16
"""Connections accepted at once, before the first of them is looked at."""
_SWEEP_S = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be.

    Attributes:
        most: in all.
        most_each: of one address (of one /64 network of IPv6).
        last_descriptor: a connection with a higher descriptor is too many: the numbers above are for cameras and disk.
    """

    most: int
    most_each: int
    last_descriptor: int

    @classmethod
    def here(cls) -> ConnectionLimits:
        """By this process's limit of open files: half of it at most, and never its last quarter."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = 1 << 20 if soft == resource.RLIM_INFINITY else soft
        most = max(8, min(MOST, files // 2))
        return cls(most, most // 2, files - max(32, files // 4))


@dataclass(slots=True)
class _Peer:
    network: str
    since: float
    """When its present request began to be due (monotonic)."""
    behind: float | None = None
    """Since when something that was sent to it has always been waiting (monotonic)."""


class Connections:
    """The open connections of one server; lives in its event loop.

    Where there are too many the oldest that still owes its request makes room, or else the oldest that does not take
    its answer: whoever sends a request at once gets in, however many connect and do nothing. One that is being
    answered, and takes it, is never closed for another.

    Args:
        limits: by this process's limit of open files by default.
        say: told when there are too many; more often than anybody wants to read.
    """

    def __init__(self, log: Callable[[str], None], limits: ConnectionLimits | None = None) -> None:
        self.closed = Counts("why", ("late", "behind", "crowded"))
        """Connections ended from here: the request was late, the answer was not taken, there were too many."""
        self._limits = limits or ConnectionLimits.here()
        self._log = log
        self._peers: dict[Any, _Peer] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def protocol(self) -> type[H11Protocol]:
        """What uvicorn is to speak HTTP with (`uvicorn.Config(http=...)`)."""
        connections = self

        class BoundedProtocol(H11Protocol):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                connections._enter(self)

            def connection_lost(self, exc: Exception | None) -> None:
                connections._peers.pop(self, None)
                super().connection_lost(exc)

            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                if self.cycle is not None and not self.cycle.response_complete and self.conn.trailing_data[0]:
                    # No browser sends a request before the answer to the one before; a hundred of them would hold
                    # the connection for as long as a hundred answers take.
                    self.cycle.keep_alive = False

            def on_response_complete(self) -> None:
                peer = connections._peers.get(self)
                if peer is not None:
                    peer.since = time.monotonic()
                super().on_response_complete()

        return BoundedProtocol

    def metrics(self) -> list[Metric]:
        """How many are open, and how many were ended from here."""
        return [
            Metric("streamgate_http_connections", "Open connections.", "gauge", (Sample(float(len(self))),)),
            Metric(
                "streamgate_http_closed", "Connections ended by the service, by why.", "counter", self.closed.samples()
            ),
        ]

    async def watch(self) -> None:
        """End connections that take too long, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._sweep(time.monotonic())

    def _enter(self, protocol: Any) -> None:
        network = network_of(protocol.client[0] if protocol.client else "")
        of_it = [one for one, peer in self._peers.items() if peer.network == network]
        descriptor = protocol.transport.get_extra_info("socket").fileno()
        self._peers[protocol] = _Peer(network, time.monotonic())
        if len(of_it) >= self._limits.most_each:
            self._make_room(of_it, protocol)
        elif len(self._peers) > self._limits.most or descriptor > self._limits.last_descriptor:
            self._make_room(list(self._peers), protocol)

    def _make_room(self, among: list[Any], newest: Any) -> None:
        owing = (one for one in among if _owes(one))
        lingering = (one for one in among if self._peers[one].behind is not None)
        self._end(next(owing, None) or next(lingering, newest), "crowded")
        self._log(f"{len(self._peers)} connections are open, which is all that there may be")

    def _sweep(self, now: float) -> None:
        for protocol, peer in list(self._peers.items()):
            if not protocol.transport.get_write_buffer_size():
                peer.behind = None
            elif peer.behind is None:
                peer.behind = now
            if peer.behind is not None and now - peer.behind > TAKEN_S:
                self._end(protocol, "behind")
            elif _owes(protocol) and now - peer.since > REQUEST_S:
                self._end(protocol, "late")

    def _end(self, protocol: Any, why: str) -> None:
        self._peers.pop(protocol, None)
        self.closed.add(why)
        protocol.transport.abort()


def _owes(protocol: Any) -> bool:
    """Whether the peer has not sent its whole request yet."""
    return protocol.conn.their_state in (h11.IDLE, h11.SEND_BODY)


class Listener(socket.socket):
    """A listening socket whose `accept` gives nothing, and pauses, while there are no descriptors left."""

    log: Callable[[str], None] = staticmethod(lambda line: None)
    """Told of that; more often than anybody wants to read."""

    def listen(self, backlog: int = 0) -> None:
        """Keep so many connections waiting as the first call said: asyncio asks for as many as it takes at once."""
        self._backlog = getattr(self, "_backlog", backlog)
        super().listen(self._backlog)

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
        self.log("no file can be opened any more: connections have to wait; raise the limit (ulimit -n)")
        time.sleep(_EXHAUSTED_PAUSE_S)
        raise BlockingIOError(errno.EAGAIN, "no descriptor is left")
