"""Lines into a gzip file whose bytes depend on the lines alone."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import TracebackType
from typing import IO, Self


class GzipLines:
    """A new file at `path`: no time and no file name in its header. Methods raise OSError; a context manager."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = open(path, "xb")  # noqa: SIM115 - closed in close()
        self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=self._file, mtime=0)

    def write(self, line: bytes) -> None:
        """Write a line; its end is added."""
        self._gzip.write(line + b"\n")

    def close(self) -> None:
        """Write what is buffered; closing twice does nothing."""
        try:
            self._gzip.close()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
