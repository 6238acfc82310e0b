"""Keyed bytes sorted by key in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

_MEMORY_LIMIT = 2 << 20


class KeyedSorter:
    """Tracks end in any order; records and events leave sorted.

    The bytes lie in memory up to 2 MiB, then in an unnamed temporary file in `folder` (the system's when
    None); per item only its key and place stay in memory. Every method raises OSError. One thread at a time.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed in close()
            max_size=_MEMORY_LIMIT, dir=None if folder is None else str(folder)
        )
        self._index: list[tuple[tuple[int, int], int, int]] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self._index)

    def put(self, key: tuple[int, int], data: bytes) -> None:
        """Keep `data` under `key`; equal keys come back in the order in which they came."""
        self._file.seek(self._end)
        self._file.write(data)
        self._index.append((key, self._end, len(data)))
        self._end += len(data)

    def in_order(self) -> Iterator[bytes]:
        """Everything, by ascending key, read one by one."""
        for _, start, length in sorted(self._index):
            self._file.seek(start)
            yield self._file.read(length)

    def close(self) -> None:
        """Let go of everything; closing twice does nothing."""
        self._index.clear()
        self._file.close()
