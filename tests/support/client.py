"""A client of the HTTP side that sends exactly what it is told."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks the server at `url`; with `token` as a Bearer header unless `headers` says otherwise."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self.url = url
        self.port = parts.port
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        return self._ask(method, path, None, self._headers if headers is None else headers)

    def post(self, path: str, body: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", path, body, {**kind, **(headers or {})})

    def send(self, path: str, body: bytes | Iterable[bytes], headers: Mapping[str, str] | None = None) -> Answer:
        """POST a body as it is, as chunks if it is no bytes."""
        return self._ask("POST", path, body, self._headers if headers is None else headers)

    def _ask(
        self, method: str, path: str, body: str | bytes | Iterable[bytes] | None, headers: Mapping[str, str]
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def listen(self, last_id: int | None = None) -> Listener:
        """An open event stream."""
        extra = {} if last_id is None else {"Last-Event-ID": str(last_id)}
        return Listener(self.port, {**self._headers, **extra})


class Listener:
    """Reads server-sent events; `close` it."""

    def __init__(self, port: int, headers: Mapping[str, str], receive_buffer: int | None = None) -> None:
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(20)
        self._socket.connect(("127.0.0.1", port))
        lines = ["GET /api/events HTTP/1.1", "Host: localhost", *(f"{key}: {text}" for key, text in headers.items())]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._file = self._socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        while self._file.readline().strip():
            pass

    def events(self, *kinds: str) -> Iterator[dict[str, str]]:
        """Events as they come: {"id", "event", "data"}; ends when the server ends the stream.

        Those of `kinds` alone if given; else all but `streams`, which come all the time.
        """
        text = b""
        while size := int(self._file.readline().strip() or b"0", 16):
            text += self._file.read(size)
            self._file.readline()
            while b"\n\n" in text:
                block, _, text = text.partition(b"\n\n")
                fields = [line.partition(": ") for line in block.decode().split("\n") if not line.startswith(":")]
                event = {name: value for name, _, value in fields}
                kind = event.get("event")
                if kind is not None and (kind in kinds if kinds else kind != "streams"):
                    yield event

    def close(self) -> None:
        self._file.close()
        self._socket.close()
