"""Holds pictures that wait to be written: in memory up to a limit, and on disk beyond it."""

from __future__ import annotations

import mmap
import tempfile
import threading
import weakref

import numpy as np

from streamgate.errors import SinkError
from streamgate.frames import Array

LIMIT_BYTES = 192 << 20
"""Memory limit for all pictures of a run: about 250 crops of 512 x 512 pixels, or 60 of 1024 x 1024."""


class PictureStore:
    """Bounds the memory of pictures that may have many owners. Thread-safe.

    A picture counts towards the limit as long as it is referenced. A picture that would exceed the limit is moved to an
    unnamed temporary file and memory-mapped from there: its owner sees the same array, and the system can reclaim the
    memory.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._mutex = threading.RLock()  # reentrant: a picture may be released while the same thread runs `keep`
        self._held = 0

    @property
    def held_bytes(self) -> int:
        """Size of the pictures in memory, in bytes."""
        with self._mutex:
            return self._held

    def keep(self, picture: Array) -> Array:
        """Return `picture` (uint8, owning its memory) or its pixels from disk. Raises SinkError if the disk is full."""
        with self._mutex:
            fits = self._held + picture.nbytes <= self._limit
            if fits:
                self._held += picture.nbytes
        if fits:
            weakref.finalize(picture, self._forget, picture.nbytes).atexit = False
            return picture
        return _on_disk(picture)

    def _forget(self, size: int) -> None:
        with self._mutex:
            self._held -= size


def _on_disk(picture: Array) -> Array:
    try:
        with tempfile.TemporaryFile(prefix="streamgate-") as file:
            file.write(np.ascontiguousarray(picture).data)
            file.flush()
            pages = mmap.mmap(file.fileno(), picture.nbytes)
    except OSError as error:
        folder = tempfile.gettempdir()
        raise SinkError(
            f"{folder}: no space for pictures that wait to be written ({error.strerror or error}); free some space, "
            "set TMPDIR to another folder, or lower --top-k or output.size"
        ) from error
    return np.frombuffer(pages, picture.dtype).reshape(picture.shape)
