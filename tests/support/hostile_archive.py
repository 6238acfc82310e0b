"""Traps that tell whether a program touched what it must not: a folder's files, an HTTP server on the loopback."""

from __future__ import annotations

import ctypes
import http.server
import os
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_IN_ACCESS, _IN_OPEN = 0x1, 0x20


class WatchedFolder:
    """Counts openings and readings of the files in a folder while the block runs, by any process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> Self:
        self._handle = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle < 0:
            raise OSError(ctypes.get_errno(), "inotify is not available")
        name = os.fsencode(self._folder)
        if self._libc.inotify_add_watch(self._handle, name, _IN_ACCESS | _IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "the folder cannot be watched")
        return self

    def touched(self) -> set[str]:
        """Names of the files that were opened or read since the last call."""
        try:
            content = os.read(self._handle, 1 << 16)
        except BlockingIOError:
            return set()
        names, index = set(), 0
        while index < len(content):
            _, _, _, length = struct.unpack_from("iIII", content, index)
            names.add(content[index + 16 : index + 16 + length].rstrip(b"\0").decode())
            index += 16 + length
        return names - {""}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)


class TrapServer:
    """Serves `content` to whoever asks and remembers the paths that were asked for."""

    def __init__(self, content: bytes) -> None:
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_HEAD = do_GET

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.asked = asked
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
