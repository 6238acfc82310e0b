"""Keeping the memory of a process flat that runs for months.

Every thread of a C program allocates from an arena of its own. Faces are made in one thread and dropped in another, so
holes spread over all arenas: eight cameras grew by 80 MiB in ten minutes of which nothing was in use.
"""

from __future__ import annotations

import ctypes
import os
import sys

ARENAS = 4
LARGE_BYTES = 256 << 10
"""Pictures are larger, records and what a network run needs besides them are smaller."""
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""malloc.h"""


def settle_allocator() -> None:
    """Have glibc use few arenas, and give large blocks back as soon as they are freed. Nothing happens elsewhere.

    By itself it puts blocks of up to 32 MiB into the arenas once one of that size has been freed: the pictures of all
    cameras then lie between small blocks that live on. To be called before threads are started; what the user has
    set in the environment (MALLOC_ARENA_MAX, MALLOC_MMAP_THRESHOLD_, GLIBC_TUNABLES) stays.
    """
    mallopt = _function("mallopt", [ctypes.c_int, ctypes.c_int])
    if mallopt is None or "GLIBC_TUNABLES" in os.environ:
        return
    for name, option, value in (
        ("MALLOC_ARENA_MAX", _M_ARENA_MAX, ARENAS),
        ("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, LARGE_BYTES),
    ):
        if name not in os.environ:
            mallopt(option, value)


def trim_memory() -> None:
    """Ask glibc to give back what is free in its arenas, which takes some milliseconds. Nothing happens elsewhere."""
    trim = _function("malloc_trim", [ctypes.c_size_t])
    if trim is not None:
        trim(0)


def _function(name: str, arguments: list[type]) -> ctypes._NamedFuncPointer | None:
    """A function of the C library that returns an int; None where it has none of that name (musl, macOS)."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        found = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    found.argtypes, found.restype = arguments, ctypes.c_int
    return found
