"""Inputs that are lists of inputs: `@list.txt`, and `-` for standard input."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from streamgate.errors import SourceError, UsageError, display

MAX_LIST_BYTES = 64 << 20
"""Maximum size of a list in bytes, enough for half a million long paths."""
_MAX_PATH_BYTES = 4096
_BINARY = re.compile(rb"[\x01-\x08\x0e-\x1f]")
"""Bytes that are common in binary files and do not occur in paths that people write into a list."""


def expanded(inputs: Iterable[str], stdin: BinaryIO | None = None) -> tuple[str, ...]:
    """`inputs` with each `@FILE` and `-` replaced by the entries of the file or of standard input.

    A list has one path, folder or pattern per line, or its entries are separated by NUL characters, as `find -print0`
    writes them. Empty lines and lines that begin with # are skipped. Paths are relative to the current folder. `@name`
    is a list unless a file with exactly that name, including the @, exists.

    Raises:
        UsageError: the file is not a list, or standard input is a terminal or given twice.
        SourceError: the list cannot be read or is empty.
    """
    return tuple(_expand(list(inputs), stdin))


def _expand(inputs: list[str], stdin: BinaryIO | None) -> Iterator[str]:
    if inputs.count("-") > 1:
        raise UsageError("standard input ('-') can be read only once: give '-' only once")
    for given in inputs:
        if given == "-":
            yield from _from_stdin(stdin)
        elif given.startswith("@") and len(given) > 1 and not os.path.lexists(given):
            yield from _from_file(given[1:])
        else:
            yield given


def _from_stdin(stdin: BinaryIO | None) -> list[str]:
    stream = stdin or (None if sys.stdin is None else sys.stdin.buffer)
    if stream is None or stream.isatty():
        raise UsageError(
            "'-' reads a list of paths from standard input: pipe one in, for example: "
            "find footage -name '*.mp4' | streamgate run -"
        )
    return _paths(stream.read(MAX_LIST_BYTES + 1), "standard input")


def _from_file(path: str) -> list[str]:
    try:
        # Reading a pipe without a writer would wait forever.
        if os.path.exists(path) and not os.path.isfile(path):
            raise SourceError(f"@{display(path)}: not a regular file; give a text file with one path per line")
        with open(path, "rb") as file:
            return _paths(file.read(MAX_LIST_BYTES + 1), f"@{display(path)}")
    except OSError as error:
        raise SourceError(f"@{display(path)}: the list cannot be read ({error.strerror}); check the path") from None


def _paths(data: bytes, name: str) -> list[str]:
    if len(data) > MAX_LIST_BYTES:
        raise UsageError(f"{name}: larger than {MAX_LIST_BYTES >> 20} MiB, which is too large for a list of paths")
    if b"\0" in data:
        lines = data.split(b"\0")
    else:
        lines = [line.strip() for line in data.removeprefix(b"\xef\xbb\xbf").splitlines()]
        lines = [line for line in lines if not line.startswith(b"#")]
    paths = [os.fsdecode(line) for line in lines if line]
    if _BINARY.search(data) or any(len(line) > _MAX_PATH_BYTES for line in lines):
        raise UsageError(f"{name}: not a list of paths; give one path per line (to read a video, give its path)")
    if not paths:
        raise SourceError(f"{name}: the list is empty; give one path per line")
    return paths
