"""Standard output and error of commands, made robust against any encoding and against readers that exit."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any, TextIO

from streamgate.errors import SinkError


class _Descriptor(io.RawIOBase):
    """Writes to a descriptor, until a write fails; later output is discarded.

    If `needed`, the failed write raises SinkError, or BrokenPipeError if the reader has exited.
    """

    def __init__(self, descriptor: int, *, needed: bool) -> None:
        self._descriptor = descriptor
        self._needed = needed
        self._broken = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        if not self._broken:
            try:
                return self._write(data)
            except OSError as error:
                self._broken = True
                if self._needed and isinstance(error, BrokenPipeError):
                    raise
                if self._needed:
                    raise SinkError(f"cannot write to standard output: {error.strerror or error}") from error
        return len(data)

    def _write(self, data: Any) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                # Some parent processes (shells, Node.js) make the descriptor non-blocking, but expect us to wait.
                select.select([], [self._descriptor], [])


def take_over() -> None:
    """Replace `sys.stdout` and `sys.stderr` by streams that escape characters which the encoding lacks.

    Writing to standard output raises BrokenPipeError if its reader has exited, and SinkError if it fails for another
    reason, such as a full disk. If writing to standard error fails, its messages are lost without an error.
    """
    sys.stdout = _text(sys.stdout, needed=True)
    sys.stderr = _text(sys.stderr, needed=False)


def _text(stream: TextIO, *, needed: bool) -> TextIO:
    # The stream is None if the parent process closed it; other replacements may have no descriptor.
    if stream is None or not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = _Descriptor(stream.fileno(), needed=needed)
    line_buffering = not needed or raw.isatty()
    buffered: io.BufferedWriter = io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffered, encoding=stream.encoding, errors="backslashreplace", line_buffering=line_buffering
    )
