"""Giving memory back to the system in a process that runs for months."""

from __future__ import annotations

import ctypes
import sys
import time

TRIM_S = 30.0


class Trimmer:
    """Asks glibc now and then to give back what is free in its arenas.

    Every thread allocates from an arena of its own. Faces are made in one thread and dropped in another, so holes
    spread over all arenas: eight cameras grew by 80 MiB in ten minutes of which nothing was in use. Where the C
    library has no `malloc_trim` (musl, macOS) nothing happens.
    """

    def __init__(self, every_s: float = TRIM_S) -> None:
        self._every_s = every_s
        self._due = time.monotonic() + every_s
        self._trim = _malloc_trim()

    def tick(self) -> None:
        """Call often; trims when it is time again. Takes some milliseconds then."""
        if self._trim is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every_s
            self._trim(0)


def _malloc_trim() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim
