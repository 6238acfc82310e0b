"""Configuration files that are none, each with what the one line about it must say.

Shared by the tests of presets, `--set` and `serve`, and by `benchmarks/reliability.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BadFile:
    """`put` makes it at a path where nothing is; `words` is what is said about it (a part of the line)."""

    what: str
    put: Callable[[Path], object]
    words: str


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def _value(text: str) -> Callable[[Path], object]:
    """At a place where any value may stand, for a preset and for streams.toml alike."""
    return _text(f"[service]\nspool_mb = {text}\n")


NOT_TOML = (
    BadFile("a table that is not closed", _text("[service\n"), "not valid TOML"),
    BadFile("a key given twice, of 100,000 letters", _text(("a" * 100_000 + " = 1\n") * 2), "not valid TOML"),
)
VALUES = {
    "a date": "1979-05-27",
    "a time": "07:32:00",
    "a moment": "1979-05-27T07:32:00Z",
    "a date in an array": "[1, [1979-05-27]]",
    "a day that there is not": "2023-02-30",
    "arrays nested 900-fold": "[" * 900 + "]" * 900,
    "arrays nested 300-fold": "[" * 300 + "]" * 300,
    "inline tables nested 400-fold": "{a=" * 400 + "1" + "}" * 400,
    "an integer of 10,000 digits": "1" * 10_000,
    "an integer of 5,000 digits with underlines": "1_" * 5_000 + "1",
    "a hexadecimal integer of 10,000 digits": "0x" + "f" * 10_000,
    "an integer of 65 bits": str(1 << 64),
}
"""What stands behind a key."""
BOUNDED = (
    *(BadFile(what, _value(text), "") for what, text in VALUES.items()),
    BadFile("a dotted key of 30,000 parts", _text(".".join(["a"] * 30_000) + " = 1\n"), "nested more than"),
    BadFile("a dotted key of quoted parts", _text(".".join([r'"\""', "'x'"] * 9_000) + " = 1\n"), "nested more than"),
    BadFile("a table's name of 20,000 parts", _text("[" + " . ".join(["a"] * 20_000) + "]\n"), "nested more than"),
    BadFile("2 MiB of spaces", _text(" " * (2 << 20)), "is larger than"),
    BadFile("bytes that are no UTF-8", lambda path: path.write_bytes(b"[service]\nout = '\xff'\n"), "not UTF-8"),
)
SPECIAL = (
    BadFile("a pipe that nobody writes", os.mkfifo, "not a regular file"),
    BadFile("/dev/zero", lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    BadFile("a folder", Path.mkdir, "not a regular file"),
    BadFile("a link to itself", lambda path: path.symlink_to(path.name), "cannot be read"),
)
BAD_FILES = (*NOT_TOML, *BOUNDED, *SPECIAL)


def remove(path: Path) -> None:
    """What a BadFile put there."""
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
