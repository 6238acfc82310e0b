"""A line to a server that can be cut, slowed down and silenced: a TCP proxy on the loopback."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Line:
    """Changed while it is in use.

    Attributes:
        cut_after: bytes towards the server after which the connection is reset, one entry a connection; an empty list
            cuts nothing more.
        bytes_per_second: towards the server; None for no limit.
        silent: what the server answers is swallowed.
        deaf: what goes to the server is swallowed.
    """

    port: int = 0
    cut_after: list[int] = field(default_factory=list)
    bytes_per_second: int | None = None
    silent: bool = False
    deaf: bool = False
    connections: int = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    """A line to 127.0.0.1:`port`."""
    line = Line()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        line.port = listening.getsockname()[1]
        threading.Thread(target=_serve, args=(listening, port, line), daemon=True).start()
        yield line
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def _serve(listening: socket.socket, port: int, line: Line) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        line.connections += 1
        cut = line.cut_after.pop(0) if line.cut_after else None
        try:
            server = socket.create_connection(("127.0.0.1", port), 5)
        except OSError:
            _reset(client)
            continue
        threading.Thread(target=_forward, args=(client, server, line, cut), daemon=True).start()
        threading.Thread(target=_back, args=(server, client, line), daemon=True).start()


def _forward(client: socket.socket, server: socket.socket, line: Line, cut: int | None) -> None:
    sent = 0
    with suppress(OSError):
        while data := client.recv(4096 if line.bytes_per_second else 65536):
            if cut is not None and sent + len(data) > cut:
                server.sendall(data[: cut - sent])
                break
            if not line.deaf:
                server.sendall(data)
            sent += len(data)
            if line.bytes_per_second:
                time.sleep(len(data) / line.bytes_per_second)
    _reset(client)
    _reset(server)


def _back(server: socket.socket, client: socket.socket, line: Line) -> None:
    with suppress(OSError):
        while data := server.recv(65536):
            if not line.silent:
                client.sendall(data)
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    """Close with a reset instead of a goodbye."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    with suppress(OSError):
        connection.close()
