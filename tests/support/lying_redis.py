"""A Redis server that answers as it should, up to a point, and then with a lie. Shared by tests and benchmarks."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PASSWORD = "pw98765"


def dripped(data: bytes, seconds: float) -> Iterator[bytes]:
    """One byte after the other, with a pause before each."""
    for byte in data:
        time.sleep(seconds)
        yield bytes([byte])


def endless(data: bytes) -> Iterator[bytes]:
    """The same again and again, up to 1 GiB."""
    return itertools.repeat(data, (1 << 30) // len(data))


@dataclass(frozen=True)
class Lie:
    """`answer` gives the bytes sent in the place of an answer; `words` is what is said about it (may be empty)."""

    what: str
    answer: Callable[[], Iterable[bytes]]
    words: str = ""
    slow: bool = False


def _once(data: bytes) -> Callable[[], Iterable[bytes]]:
    return lambda: [data]


NONSENSE = "does not follow the Redis protocol"
LIES = (
    Lie("an error line of 100 kB", _once(b"-ERR " + b"a" * 100_000 + b"\r\n")),
    Lie("an error line of 900 kB, of addresses", _once(b"-ERR " + b"http://u:p@h/?user=a " * 45_000 + b"\r\n")),
    Lie("an error line of 10 MB", _once(b"-ERR " + b"a" * 10_000_000 + b"\r\n"), NONSENSE),
    Lie("an error that tells the password, in colours", _once(f"-ERR \x1b[31m{PASSWORD}\x07\r\n".encode())),
    Lie("an error without words", _once(b"-\r\n"), "an error without a message"),
    Lie("a line without an end", lambda: endless(b"+" + b"a" * 65_535), NONSENSE),
    Lie("an integer of 20,000 digits", _once(b":" + b"1" * 20_000 + b"\r\n"), NONSENSE),
    Lie("an integer that is none", _once(b":abc\r\n"), NONSENSE),
    Lie("arrays nested 5,000-fold", _once(b"*1\r\n" * 5_000 + b":1\r\n"), NONSENSE),
    Lie("an array of a billion", lambda: itertools.chain([b"*1000000000\r\n"], endless(b":1\r\n" * 10_000)), NONSENSE),
    Lie("a text of a gigabyte", lambda: itertools.chain([b"$1000000000\r\n"], endless(bytes(65_536))), NONSENSE),
    Lie("a text of negative length", _once(b"$-7\r\n")),
    Lie("a text whose length is none", _once(b"$abc\r\nabc\r\n"), NONSENSE),
    Lie("a type that there is not", _once(b"\xff\xfe\r\n"), NONSENSE),
    Lie("an answer of RESP3", _once(b"%1\r\n+a\r\n+b\r\n"), NONSENSE),
    Lie("HTTP", _once(b"HTTP/1.1 400 Bad Request\r\n\r\n"), NONSENSE),
    Lie("OK to everything", _once(b"+OK\r\n"), f"{NONSENSE}|Wrong number of response"),
    Lie("nothing and no end", lambda: dripped(b"", 0), "not respond in time|no connection", True),
    Lie("a byte now and then", lambda: dripped(b"+" + b"a" * 10_000, 0.2), "not respond in time", True),
    Lie("empty lines", lambda: endless(b"\r\n" * 1000)),
)
"""Each is answered in the place of anything."""


@dataclass
class LyingRedis:
    """Answers soundly until `lie` is set, or after `sound_adds` events were taken."""

    port: int = 0
    lie: Lie | None = None
    sound_adds: int | None = None
    taken: int = 0
    connections: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def url(self, options: str = "") -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0{options}"


@contextmanager
def lying_redis(lie: Lie | None = None, sound_adds: int | None = None) -> Iterator[LyingRedis]:
    """A server on a spare port of the loopback; see `LyingRedis`."""
    server = LyingRedis(lie=lie, sound_adds=sound_adds)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server.port = listening.getsockname()[1]
        threading.Thread(target=_listen, args=(listening, server), daemon=True).start()
        try:
            yield server
        finally:
            server.ended.set()
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)


def _listen(listening: socket.socket, server: LyingRedis) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        server.connections += 1
        threading.Thread(target=_serve, args=(client, server), daemon=True).start()


def _serve(client: socket.socket, server: LyingRedis) -> None:
    queued = -1  # commands of a transaction, -1 outside of one
    with suppress(OSError, ValueError), client, client.makefile("rb") as lines:
        while command := _command(lines):
            if server.lie is not None and (server.sound_adds is None or server.taken >= server.sound_adds):
                for part in server.lie.answer():
                    client.sendall(part)
                if server.lie.slow:
                    server.ended.wait()
                    return
                continue
            word = command[0].upper()
            if word == b"MULTI":
                queued, answer = 0, b"+OK\r\n"
            elif word == b"EXEC":
                server.taken += queued
                answer = b"*%d\r\n" % queued + b"$3\r\n1-1\r\n" * queued
                queued = -1
            elif word == b"DISCARD":
                queued, answer = -1, b"+OK\r\n"
            elif queued >= 0:
                queued, answer = queued + 1, b"+QUEUED\r\n"
            elif word == b"XADD":
                server.taken += 1
                answer = b"$3\r\n1-1\r\n"
            else:
                answer = {b"PING": b"+PONG\r\n", b"XDEL": b":0\r\n"}.get(word, b"+OK\r\n")
            client.sendall(answer)


def _command(lines: object) -> list[bytes]:
    head = lines.readline()  # type: ignore[attr-defined]
    if not head.startswith(b"*"):
        return []
    parts = []
    for _ in range(int(head[1:])):
        size = int(lines.readline()[1:])  # type: ignore[attr-defined]
        parts.append(lines.read(size + 2)[:-2])  # type: ignore[attr-defined]
    return parts
