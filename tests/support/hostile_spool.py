"""What may lie in the folder of a spool besides what a spool wrote. Shared by tests and benchmarks."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

HEAD = 20
"""Bytes before an item's data in its segment."""
_MOST = (1 << 64) - 1

FOREIGN = {
    "text": b"this is a shopping list\n" * 50,
    "an unknown mark": b"SGE2" + bytes(100),
    "zeros": bytes(100_000),
    "nothing but marks": b"SGE1" * 300_000,
    "marks that claim megabytes": (b"SGE1" + (60 << 20).to_bytes(4, "big") + bytes(12)) * 4000,
    "the beginning of a frame": b"SGE1" + (50).to_bytes(4, "big"),
}
"""Contents of a file that is named like a segment."""


def frame(number: int, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(number.to_bytes(8, "big")))
    return struct.pack(">4sIIQ", b"SGE1", len(data), checksum, number) + data


def acked(number: int) -> bytes:
    return struct.pack(">QI", number, zlib.crc32(number.to_bytes(8, "big")))


INTRUDERS: dict[str, Callable[[Path], object]] = {
    "a pipe for a segment": lambda folder: os.mkfifo(folder / "00000003.spool"),
    "a folder for a segment": lambda folder: (folder / "00000003.spool").mkdir(),
    "a link for a segment": lambda folder: (folder / "00000003.spool").symlink_to("/dev/zero"),
    "digits of another script": lambda folder: (folder / "\u0663\u0663\u0663.spool").write_bytes(b""),
    "a digit that is no number": lambda folder: (folder / "0000000\u00b2.spool").write_bytes(b""),
    "a number of 30 digits": lambda folder: (folder / f"{'9' * 30}.spool").write_bytes(b""),
    "the last number of all": lambda folder: (folder / "99999999.spool").write_bytes(b""),
    "a name without a number": lambda folder: (folder / "x.spool").write_bytes(b""),
    "a segment of 2 GiB": lambda folder: _sparse(folder / "00000003.spool", 2 << 30),
    "an event with an absurd number": lambda folder: (folder / "00000003.spool").write_bytes(frame(_MOST, b"x")),
    "a pipe for the number of what arrived": lambda folder: (_without_acked(folder), os.mkfifo(folder / "acked")),
    "a link for it": lambda folder: (_without_acked(folder), (folder / "acked").symlink_to("/dev/zero")),
    "an absurd number of what arrived": lambda folder: (folder / "acked").write_bytes(acked(_MOST)),
    "a link for the folder of damaged files": lambda folder: (folder / "damaged").symlink_to(folder.parent),
    "a file for it": lambda folder: (folder / "damaged").touch(),
    "a pipe for the lock": lambda folder: ((folder / "lock").unlink(), os.mkfifo(folder / "lock")),
}
"""Each puts something into the folder of a spool that has been used."""


def _sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


def _without_acked(folder: Path) -> None:
    (folder / "acked").unlink(missing_ok=True)
