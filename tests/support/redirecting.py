"""A camera or web server that sends its clients elsewhere, and the place they are sent to, which records what they say.

Shared by tests and benchmarks. `Elsewhere` speaks as much RTSP or HTTP as it takes to be asked again with a password.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Answer = Callable[[str, str, dict[str, str]], str | None]
"""From method, address and headers (lower case) to the answer's status line and headers; None closes."""

CHALLENGES = {
    "basic": 'Basic realm="elsewhere"',
    "digest": 'Digest realm="elsewhere", nonce="0123456789abcdef"',
}


@dataclass
class Recorder:
    """What was said to a server."""

    port: int = 0
    heard: list[bytes] = field(default_factory=list)
    connections: int = 0

    def holds(self, *secrets: str) -> bool:
        return any(secret.encode() in b"".join(self.heard) for secret in secrets)


@contextmanager
def listening(answer: Answer) -> Iterator[Recorder]:
    """A server on a spare port of the loopback that answers head by head."""
    recorder = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as server:
        recorder.port = server.getsockname()[1]
        threading.Thread(target=_accept, args=(server, recorder, answer), daemon=True).start()
        yield recorder
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket, recorder: Recorder, answer: Answer) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        recorder.connections += 1
        threading.Thread(target=_serve, args=(client, recorder, answer), daemon=True).start()


def _serve(client: socket.socket, recorder: Recorder, answer: Answer) -> None:
    with client, suppress(OSError, ValueError):
        buffer = b""
        while data := client.recv(65536):
            recorder.heard.append(data)
            buffer += data
            while b"\r\n\r\n" in buffer:
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                first, *rest = head.decode("latin-1").split("\r\n")
                method, url, version = first.split(" ", 2)
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
                said = answer(method, url, headers)
                if said is None:
                    return
                protocol = version if version.startswith("RTSP") else "HTTP/1.1"
                number = f"CSeq: {headers['cseq']}\r\n" if "cseq" in headers else "Content-Length: 0\r\n"
                status, _, more = said.partition("\r\n")
                client.sendall(f"{protocol} {status}\r\n{number}{more}{chr(13) + chr(10) if more else ''}\r\n".encode())


def asks(challenge: str) -> Answer:
    """Wants a password for everything."""
    return lambda method, url, headers: f"401 Unauthorized\r\nWWW-Authenticate: {CHALLENGES[challenge]}"


def sends(to: Callable[[], str], when: str = "DESCRIBE", after: str | None = None, status: int = 302) -> Answer:
    """Sends clients elsewhere when asked for `when`; with `after` only those that have a password of that kind."""

    def answer(method: str, url: str, headers: dict[str, str]) -> str:
        if after is not None and "authorization" not in headers:
            return f"401 Unauthorized\r\nWWW-Authenticate: {CHALLENGES[after]}"
        if method == when:
            return f"{status} Moved\r\nLocation: {to()}"
        return "200 OK\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY"

    return answer
