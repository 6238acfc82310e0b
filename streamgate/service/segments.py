"""Reads and writes the segment files of a spool, which are sequences of framed items; skips damaged items.

A frame consists of a mark, the length of the data, a CRC-32 of number and data, the item's number, and the data. After
a damaged frame, reading continues at the next mark that starts a valid frame: a flipped bit destroys only the item that
contains it.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from streamgate.errors import SinkError

FRAME = struct.Struct(">4sIIQ")  # mark, length, CRC-32 of number and data, number
MAX_ITEM_BYTES = 64 << 20
"""Maximum size of an item in bytes; the largest events have a few million bytes."""
MAX_NUMBER = 1 << 53
"""Limit for item numbers, which start at 1; no service runs long enough to reach it."""
MAX_SEGMENT_BYTES = 1 << 30
DAMAGED = "damaged"
"""Name of the folder for damaged segments that were set aside."""
_MARK = b"SGE1"
_NAME = re.compile(r"[0-9]{8}\.spool")
_LAST = 90_000_000
"""Limit for the numbers of existing segments; it leaves enough numbers for new segments."""
_IN_VAIN = 256 << 20
"""Maximum number of bytes that are read after marks without a valid frame; when it is reached, the rest of the segment
is skipped. Without this limit, a file that consists of marks would take quadratic time."""
_TRY = 4096
"""Minimum number of bytes that each mark without a valid frame adds to the total limited by `_IN_VAIN`."""
_BLOCK = 1 << 20
_FIRST_BLOCK = 4096
"""Size of the first block that is read after damage. It is small because most damaged stretches are short, and reading
a large block for each would take quadratic time."""


Item = tuple[int, bytes]
"""A waiting item: its number and its data. Numbers continue to increase across restarts."""


@dataclass(frozen=True, slots=True)
class ItemLocation:
    """Where an item is stored: in a segment, or in memory (`data`) because it could not be written to disk."""

    number: int
    length: int
    segment: int
    offset: int
    data: bytes | None = None


def not_a_spool(folder: Path, problem: str) -> SinkError:
    """The error for a folder that holds something other than a spool."""
    return SinkError(
        f"{folder}: {problem}; this is not a spool of `streamgate serve`: move the folder away, or choose another one "
        "with --spool"
    )


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"{number:08d}.spool"


def segments_in(folder: Path) -> list[int]:
    """Numbers of the segments in a folder, ascending.

    Raises OSError, and raises SinkError if a file ending in `.spool` is not a segment or if `DAMAGED` is not a folder.
    """
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == DAMAGED and not entry.is_dir(follow_symlinks=False):
                # Old files in this folder are removed, so it must not be a link.
                raise not_a_spool(folder, f"{DAMAGED} is not a folder")
            if not entry.name.endswith(".spool"):
                continue
            if not _NAME.fullmatch(entry.name):
                raise not_a_spool(folder, f"{entry.name!r} is not the name of a segment")
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise not_a_spool(folder, f"{entry.name} is not a regular file")
            number = int(entry.name.partition(".")[0])
            if not 0 < number < _LAST or status.st_size > MAX_SEGMENT_BYTES:
                raise not_a_spool(folder, f"{entry.name} has a number or a size that is too large for a segment")
            found.append(number)
    return sorted(found)


def open_regular(path: Path) -> IO[bytes]:
    """Open a file of the spool, without following links and without blocking on a pipe.

    Raises OSError if it cannot be opened, SinkError if it is not a regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise not_a_spool(path.parent, f"{path.name} is not a regular file")
    return file


def framed(item: Item) -> bytes:
    """An item as bytes of a segment, with its frame."""
    number, data = item
    return FRAME.pack(_MARK, len(data), _checksum(number, data), number) + data


def read_item(path: Path, location: ItemLocation) -> bytes | None:
    """An item's data; None when it is missing or damaged."""
    try:
        with open_regular(path) as file:
            found = _frame_at(file, location.offset - FRAME.size)
    except (OSError, SinkError):
        return None
    return found[1] if found is not None and found[0] == location.number else None


def scan(path: Path, segment: int) -> tuple[list[ItemLocation], int]:
    """Find the intact items of a segment; also returns the number of damaged stretches before, between and after them.

    Raises the same errors as `open_regular`.
    """
    locations: list[ItemLocation] = []
    stretches = in_vain = offset = 0
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        while offset < size:
            found = _frame_at(file, offset)
            if found is None:
                stretches += 1
                for mark in _marks(file, offset + 1):
                    offset, found = mark, _frame_at(file, mark)
                    if found is not None or in_vain > _IN_VAIN:
                        break
                    in_vain += max(_TRY, _claimed(file, mark))
            if found is None:
                break
            number, data = found
            locations.append(ItemLocation(number, len(data), segment, offset + FRAME.size))
            offset += FRAME.size + len(data)
    return locations, stretches


def _frame_at(file: IO[bytes], offset: int) -> tuple[int, bytes] | None:
    """Number and data of the intact frame at an offset of a file; None if there is no intact frame."""
    head = os.pread(file.fileno(), FRAME.size, offset)
    if len(head) < FRAME.size:
        return None
    mark, length, checksum, number = FRAME.unpack(head)
    if mark != _MARK or length > MAX_ITEM_BYTES:
        return None
    data = os.pread(file.fileno(), length, offset + FRAME.size)
    return (number, data) if len(data) == length and _checksum(number, data) == checksum else None


def _claimed(file: IO[bytes], offset: int) -> int:
    """Number of bytes that were read to find out that a mark does not start a valid frame."""
    head = os.pread(file.fileno(), FRAME.size, offset)
    length = int(FRAME.unpack(head)[1]) if len(head) == FRAME.size else 0
    return length if length <= MAX_ITEM_BYTES else 0


def _marks(file: IO[bytes], start: int) -> Iterator[int]:
    """Offsets of the marks at or after `start`."""
    file.seek(start)
    before, size = b"", _FIRST_BLOCK
    while block := file.read(size):
        size = _BLOCK
        block = before + block
        found = block.find(_MARK)
        while found >= 0:
            yield start + found
            found = block.find(_MARK, found + 1)
        before = block[1 - len(_MARK) :]
        start += len(block) - len(before)


def _checksum(number: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(struct.pack(">Q", number)))
