"""Pictures that wait to be written: in memory up to a limit, beyond it on disk."""

from __future__ import annotations

import mmap
import tempfile
import threading
import weakref

import numpy as np

from streamgate.errors import SinkError
from streamgate.frames import Array

LIMIT_BYTES = 192 << 20
"""Of all pictures of a run: 250 crops of 512 pixels a side, 60 of 1024."""


class PictureStore:
    """Bounds the memory of pictures whose owners may be many; thread-safe.

    A picture counts as long as anybody holds it. One that would go beyond the limit is moved to an unnamed
    temporary file and mapped from there: the same array to its owner, memory that the system may take back.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._mutex = threading.RLock()  # a picture may be let go while another is being kept, by this very thread
        self._held = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the pictures that are held in memory."""
        with self._mutex:
            return self._held

    def keep(self, picture: Array) -> Array:
        """`picture` (owned, uint8), or the same pixels from disk. Raises SinkError when the disk is full."""
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
            f"{folder}: no room for pictures that wait ({error.strerror or error}); free some space, set TMPDIR to "
            "another folder, or lower --top-k or output.size"
        ) from error
    return np.frombuffer(pages, picture.dtype).reshape(picture.shape)
