"""HTTP server that serves the report's pages and stores the labels; it accepts connections from this machine only."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from streamgate.errors import SinkError, SourceError, StreamgateError, one_line
from streamgate.labels import WORDS, FaceKey, labels_text, read_labels
from streamgate.report.content import Content
from streamgate.report.write import plan
from streamgate.store.files import sink_errors, write_text
from streamgate.store.layout import REPORT

HOST = "127.0.0.1"
_NAMES = {grade: word for word, grade in WORDS.items()}
_MAX_BYTES = 4096
_TIMEOUT_S = 30.0


def stored_labels(path: Path) -> dict[FaceKey, int]:
    """The labels in the CSV file `path`; empty if there is no such file. Raises SourceError for an invalid file."""
    labels, problems = read_labels(path) if path.exists() else ({}, [])
    if problems:
        # Saving a label rewrites the file, which would drop the rows that could not be read.
        raise SourceError(f"{path}: {problems[0]}; correct the file, or choose another file with --labels")
    return labels


class LabelServer(ThreadingHTTPServer):
    """Serves the pages of `content` and accepts labels. `port` 0 selects any free port.

    `labels` are the labels in the file `target`, which is rewritten at each change. Raises OSError if the port cannot
    be used.
    """

    daemon_threads = True

    def __init__(self, content: Content, labels: dict[FaceKey, int], target: Path, port: int) -> None:
        self.content, self.labels = content, labels
        self._target = target
        self._writing = threading.Lock()
        self.pages = plan(content)
        self.reading = threading.Lock()
        self.pictures = {record["image"] for _, record in content.folder.faces_with_offsets()}
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """The address for the browser."""
        return f"http://{HOST}:{self.server_port}/"

    def set_label(self, key: FaceKey, grade: int | None) -> None:
        """Change or remove (None) one label and write the file. If that fails, the labels do not change.

        Raises SinkError.
        """
        with self._writing:
            labels = {one: value for one, value in self.labels.items() if one != key}
            if grade is not None:
                labels[key] = grade
            with sink_errors(self._target):
                write_text(self._target.parent, self._target.name, labels_text(labels.items()))
            self.labels = labels

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not report browsers that close the connection."""


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        if not self._is_ours():
            return
        name = unquote(urlsplit(self.path).path).lstrip("/") or REPORT
        if name == "labels":
            labels = {_page_key(key): _NAMES[grade] for key, grade in self.server.labels.items()}
            self._answer(json.dumps(labels).encode(), "application/json")
        elif name in self.server.pages:
            try:
                # `Content` is not thread-safe.
                with self.server.reading:
                    text = self.server.pages[name]()
            except StreamgateError as error:
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
                return
            self._answer(text.encode(), "text/html; charset=utf-8")
        elif name in self.server.pictures:
            try:
                kind = {"png": "image/png", "webp": "image/webp"}.get(name.rpartition(".")[2], "image/jpeg")
                self._answer(self.server.content.folder.content(name), kind)
            except (OSError, ValueError):
                self._refuse(HTTPStatus.NOT_FOUND, "the picture was removed from the output folder")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        if urlsplit(self.path).path != "/labels":
            self._refuse(HTTPStatus.NOT_FOUND, "send labels to /labels")
            return
        # Forms on other sites cannot send this type without a CORS preflight request.
        if self.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the label as JSON")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _MAX_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {_MAX_BYTES} bytes")
            return
        try:
            key, grade = _label_of(json.loads(self.rfile.read(int(length))))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"not a label ({one_line(str(error), 100)})")
            return
        if key.source_id not in self.server.content.folder.source_ids:
            self._refuse(HTTPStatus.BAD_REQUEST, "the results contain no source with this source_id")
            return
        try:
            self.server.set_label(key, grade)
        except SinkError as error:
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, str(error))
            return
        self._answer(b"{}", "application/json")

    def _is_ours(self) -> bool:
        """Check that the request comes from our own page; otherwise, refuse it and return False."""
        names = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in names and (origin is None or origin.removeprefix("http://") in names):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, f"open {self.server.address} instead")
        return False

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        self.close_connection = True
        self._answer(words.encode(), "text/plain; charset=utf-8", status)

    def _answer(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind), ("Content-Length", str(len(data))), ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"), ("Referrer-Policy", "no-referrer"),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Do not log requests."""


def _label_of(given: Mapping[str, Any]) -> tuple[FaceKey, int | None]:
    source_id, track_id, pts, label = (given[name] for name in ("source_id", "track_id", "pts_seconds", "label"))
    if type(source_id) is not str or type(track_id) is not int or type(pts) not in (int, float):
        raise ValueError("source_id must be a string, track_id an integer, and pts_seconds a number")
    if not 0 <= pts < 1e12 or not 0 <= track_id < 2**53:
        raise ValueError("track_id or pts_seconds is out of range")
    return FaceKey(source_id, track_id, round(float(pts), 6)), None if label is None else WORDS[label]


def _page_key(key: FaceKey) -> str:
    """The key that the page uses for a face: [source_id, track_id, pts_seconds] as JavaScript's `JSON.stringify`
    writes it."""
    pts = int(key.pts_seconds) if key.pts_seconds.is_integer() else key.pts_seconds
    return json.dumps([key.source_id, key.track_id, pts], separators=(",", ":"), ensure_ascii=False)
