"""Peers of the HTTP side that take what they can get and send next to nothing. Shared by tests and benchmarks."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n"
MANY = b"GET /static/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
GARBAGE = bytes(range(256)) * 4


@dataclass(frozen=True)
class Peers:
    """`count` connections that send `first` and then, every second, `drip`; with `again` closed ones come back."""

    what: str
    count: int
    first: bytes = b""
    drip: bytes = b""
    again: bool = False


PEERS = (
    Peers("400 connections that send nothing", 400),
    Peers("400 that send nothing and come back at once", 400, again=True),
    Peers("400 that send half a request", 400, HEAD, again=True),
    Peers("400 that send a letter of a header every second", 400, HEAD + b"X: ", b"a", again=True),
    Peers("400 that send a letter of a form every second", 400, POST, b"a", again=True),
    Peers("400 that ask for a file 200 times and take nothing", 400, MANY, again=True),
    Peers("400 that send garbage", 400, GARBAGE, again=True),
    Peers("400 that begin a TLS handshake", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", again=True),
)


@dataclass
class Crowd:
    """The peers at work."""

    opened: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


@contextmanager
def crowd(port: int, peers: Peers) -> Iterator[Crowd]:
    """Have `peers` at 127.0.0.1:`port` while the block runs."""
    state = Crowd()
    thread = threading.Thread(target=_work, args=(port, peers, state), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.stop.set()
        thread.join(30)


def _work(port: int, peers: Peers, state: Crowd) -> None:
    connected: list[socket.socket] = []
    while not state.stop.is_set():
        missing = peers.count - len(connected) if peers.again or state.opened < peers.count else 0
        for _ in range(missing):
            with suppress(OSError):
                connected.append(_connected(port, peers.first))
                state.opened += 1
        state.stop.wait(1.0)
        connected = [one for one in connected if _lives(one, peers.drip)]
    for one in connected:
        one.close()


def _connected(port: int, first: bytes) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), 1)
    made.setblocking(False)
    with suppress(BlockingIOError):
        made.send(first)
    return made


def _lives(connection: socket.socket, drip: bytes) -> bool:
    """Whether a connection is still open; sends the next bytes, and takes nothing of what comes."""
    state = select.poll()
    state.register(connection, select.POLLRDHUP)
    try:
        if drip:
            connection.send(drip)
        if not state.poll(0):
            return True
    except BlockingIOError:
        return True
    except OSError:
        pass
    connection.close()
    return False
