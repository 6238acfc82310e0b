"""Sorts byte strings by key in limited memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

_MEMORY_LIMIT = 2 << 20


class KeyedSorter:
    """Collects records or events in any order and returns them sorted by key.

    Up to 2 MiB of data are held in memory; larger data is held in an unnamed temporary file in `folder` (by default,
    the system's temporary folder). The keys are always in memory. Every method may raise OSError. Not thread-safe.
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
        """Add `data` with `key`; items with equal keys keep their order of insertion."""
        self._file.seek(self._end)
        self._file.write(data)
        self._index.append((key, self._end, len(data)))
        self._end += len(data)

    def in_order(self) -> Iterator[bytes]:
        """Yield all items by ascending key; each is read when it is needed."""
        for _, start, length in sorted(self._index):
            self._file.seek(start)
            yield self._file.read(length)

    def close(self) -> None:
        """Release the memory and the file. Closing twice is allowed."""
        self._index.clear()
        self._file.close()
