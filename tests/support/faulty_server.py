"""An HTTP server on the loopback that serves one file badly, each request in its own way."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """How one request is answered.

    Attributes:
        cut: the connection breaks after so many bytes of the body.
        ranges: the server knows ranges.
        says: Content-Length by the header, None for the truth, "" for none at all.
        status: another status than 200 or 206.
        redirect: an address to go to.
        drip: seconds of pause behind each byte.
        body: instead of the file.
        headers: more headers.
    """

    cut: int | None = None
    ranges: bool = True
    says: str | None = None
    status: int | None = None
    redirect: str = ""
    drip: float = 0.0
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Server:
    url: str
    requests: list[dict[str, str]] = field(default_factory=list)
    """Headers of each request, with its path as `:path`."""


@contextmanager
def faulty(content: bytes, answers: Sequence[Answer]) -> Iterator[Server]:
    """Serve `content`; the n-th request gets the n-th answer, later ones the last."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[min(len(server.requests), len(answers) - 1)]
            server.requests.append({**dict(self.headers.items()), ":path": self.path})
            if answer.status or answer.redirect:
                self.send_response(answer.status or 302)
                if answer.redirect:
                    self.send_header("Location", answer.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = content if answer.body is None else answer.body
            begin = self.headers.get("Range", "").removeprefix("bytes=").rstrip("-")
            start = int(begin) if begin and answer.ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            length = str(len(body) - start) if answer.says is None else answer.says
            if length:
                self.send_header("Content-Length", length)
            for name, value in answer.headers:
                self.send_header(name, value)
            self.end_headers()
            rest = body[start : None if answer.cut is None else start + answer.cut]
            try:
                if not answer.drip:
                    self.wfile.write(rest)
                for byte in rest if answer.drip else b"":
                    self.wfile.write(bytes([byte]))
                    time.sleep(answer.drip)
            except OSError:
                pass
            self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    server = Server(f"http://127.0.0.1:{web.server_port}")
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        web.shutdown()
        web.server_close()
