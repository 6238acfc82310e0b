"""One file of a spool: framed items, one after the other, and finding them again behind damage.

A frame is a mark, a length, a CRC-32 of number and data, a number, and the data. Where a frame is not whole, reading
goes on at the next mark that begins one that is: a flipped bit costs its own item and no other.
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

FRAME = struct.Struct(">4sIIQ")  # mark, length, CRC-32 of number and data, number
MAX_ITEM_BYTES = 64 << 20
"""Bytes; the largest events are a few million."""
MAX_NUMBER = 1 << 53
"""Items are numbered from 1, and no service lives to get there."""
MAX_SEGMENT_BYTES = 1 << 30
DAMAGED = "damaged"
"""Folder of the segments that were set aside."""
_MARK = b"SGE1"
_NAME = re.compile(r"[0-9]{8}\.spool")
_LAST = 90_000_000
"""Number of a segment from which no others would fit behind it."""
_IN_VAIN = 256 << 20
"""Bytes looked at behind marks that begin nothing, after which the rest of a segment is given up: a file of nothing but
marks would take time by the square of its size."""
_TRY = 4096
"""What a look counts for at least."""
_BLOCK = 1 << 20
_FIRST_BLOCK = 4096
"""Most damage ends soon: a whole block for each would take time by the square of their number."""


class NotASpoolError(Exception):
    """Something in the folder that no spool has written; says what, without the path."""


@dataclass(frozen=True, slots=True)
class Item:
    """One waiting item and its number, which grows over restarts too."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ItemLocation:
    """Where an item lies: in a segment, or (`data`) in memory because the disk refused it."""

    number: int
    length: int
    segment: int
    offset: int
    data: bytes | None = None


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"{number:08d}.spool"


def segments_in(folder: Path) -> list[int]:
    """Numbers of the segments in a folder, ascending.

    Raises OSError, and NotASpoolError for whatever else is named `.spool`, and where `DAMAGED` is no folder.
    """
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == DAMAGED and not entry.is_dir(follow_symlinks=False):
                # Files are removed there.
                raise NotASpoolError(f"{DAMAGED} is no folder")
            if not entry.name.endswith(".spool"):
                continue
            if not _NAME.fullmatch(entry.name):
                raise NotASpoolError(f"{entry.name!r} is no name of a segment")
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise NotASpoolError(f"{entry.name} is no regular file")
            number = int(entry.name.partition(".")[0])
            if not 0 < number < _LAST or status.st_size > MAX_SEGMENT_BYTES:
                raise NotASpoolError(f"{entry.name} has a number or a size that no segment comes to")
            found.append(number)
    return sorted(found)


def open_regular(path: Path) -> IO[bytes]:
    """Open a file of the spool; never through a link, and without waiting for whoever writes into a pipe.

    Raises OSError, and NotASpoolError for anything that is no regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotASpoolError(f"{path.name} is no regular file")
    return file


def framed(item: Item) -> bytes:
    """The bytes of an item in a segment."""
    return FRAME.pack(_MARK, len(item.data), _checksum(item.number, item.data), item.number) + item.data


def read_item(path: Path, location: ItemLocation) -> bytes | None:
    """An item's data; None when it is not there whole (any more)."""
    try:
        with open_regular(path) as file:
            found = _frame_at(file, location.offset - FRAME.size)
    except (OSError, NotASpoolError):
        return None
    return found[1] if found is not None and found[0] == location.number else None


def scan(path: Path, segment: int) -> tuple[list[ItemLocation], int]:
    """The whole items of a segment, and how many damaged stretches lie between and behind them.

    Raises OSError, and NotASpoolError as `open_regular`.
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
    """Number and data of the whole frame at a place of a file, if there is one."""
    head = os.pread(file.fileno(), FRAME.size, offset)
    if len(head) < FRAME.size:
        return None
    mark, length, checksum, number = FRAME.unpack(head)
    if mark != _MARK or length > MAX_ITEM_BYTES:
        return None
    data = os.pread(file.fileno(), length, offset + FRAME.size)
    return (number, data) if len(data) == length and _checksum(number, data) == checksum else None


def _claimed(file: IO[bytes], offset: int) -> int:
    """Bytes that were looked at for what stands behind a mark and is no frame."""
    head = os.pread(file.fileno(), FRAME.size, offset)
    length = int(FRAME.unpack(head)[1]) if len(head) == FRAME.size else 0
    return length if length <= MAX_ITEM_BYTES else 0


def _marks(file: IO[bytes], start: int) -> Iterator[int]:
    """Places of the marks at or behind `start`."""
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
