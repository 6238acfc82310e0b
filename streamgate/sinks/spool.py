"""A bounded queue on disk: what was put in leaves in order, also after the process was killed.

FOLDER/lock                 who uses it
FOLDER/acked                number of the last item that was done with
FOLDER/00000001.spool       segments: one framed item after the other, appended and fsynced

Items are done with at least once: the number in `acked` is not fsynced with every item, so after a power cut some
come out again. A segment is removed when none of its items is wanted any more.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from streamgate.errors import SinkError
from streamgate.store import files

_FRAME = struct.Struct(">4sIIQ")  # mark, length, CRC-32 of number and data, number
_MARK = b"SGE1"
_ACKED = struct.Struct(">QI")
_SEGMENT_BYTES = 16 << 20
_MEMORY_BYTES = 64 << 20
"""Items held in memory while the disk takes none."""


@dataclass(frozen=True, slots=True)
class Item:
    """One waiting item and its number, which grows over restarts too."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an item lies: in a segment, or (`data`) in memory because the disk refused it."""

    number: int
    length: int
    segment: int
    offset: int
    data: bytes | None = None


class Spool:
    """See the module. A context manager; thread-safe.

    Past `limit_bytes` the oldest items are dropped and counted. An item that the disk refuses (full, broken) waits
    in memory, up to 64 MiB, and `append` says so; it keeps its place in the order.

    Args:
        folder: made when it is missing, readable by its owner alone.
        limit_bytes: of all items that wait.

    Entering raises SinkError: the folder is in use by another process, or not writable.
    """

    def __init__(self, folder: Path, limit_bytes: int, *, segment_bytes: int | None = None) -> None:
        self.dropped = 0
        """Items dropped because the bound was reached."""
        self.damaged = 0
        """Segments of an earlier process with a damaged or torn end."""
        self._folder = folder
        self._limit = limit_bytes
        self._segment_bytes = segment_bytes or max(1, min(_SEGMENT_BYTES, limit_bytes // 8))
        self._lock = files.Lock(folder / "lock")
        self._changed = threading.Condition()
        self._places: deque[_Place] = deque()
        self._wanted: Counter[int] = Counter()
        self._bytes = 0
        self._in_memory = 0
        self._number = 0
        self._segment = 0
        self._file: IO[bytes] | None = None
        self._acked: IO[bytes] | None = None

    def __enter__(self) -> Self:
        with files.sink_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.acquire()
        try:
            with files.sink_errors(self._folder):
                self._scan()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make everything durable, items held in memory too where the disk takes them by now."""
        with self._changed:
            held = [place for place in self._places if place.data is not None]
            with suppress(OSError):
                if held:
                    self._write([Item(place.number, place.data or b"") for place in held])
            with suppress(OSError):
                if self._acked is not None:
                    os.fsync(self._acked.fileno())
            for file in (self._file, self._acked):
                if file is not None:
                    with suppress(OSError):
                        file.close()
            self._file = self._acked = None
        self._lock.release()

    def __len__(self) -> int:
        """Number of items that wait."""
        with self._changed:
            return len(self._places)

    @property
    def size(self) -> int:
        """Bytes of the items that wait."""
        with self._changed:
            return self._bytes

    def append(self, items: Sequence[bytes]) -> tuple[list[int], SinkError | None]:
        """Add items at the end, durably.

        Returns their numbers, and why the disk did not take them: then they wait in memory only. Never raises for
        the disk's sake.
        """
        with self._changed:
            numbered = [Item(self._number + place, data) for place, data in enumerate(items, 1)]
            self._number += len(items)
            problem = None
            held = [place for place in self._places if place.data is not None]
            try:
                # Those that the disk refused before come first.
                places = self._write([*(Item(one.number, one.data or b"") for one in held), *numbered])
                self._settle(places[: len(held)])
            except OSError as error:
                problem = files.sink_error(error, self._folder)
                held = []
                places = [_Place(item.number, len(item.data), 0, 0, item.data) for item in numbered]
            for place in places[len(held) :]:
                self._add(place)
            self._keep_bounds()
            self._changed.notify_all()
            return [item.number for item in numbered], problem

    def peek(self, max_items: int, max_bytes: int) -> list[Item]:
        """The oldest items, at least one when any waits; they stay until `done`."""
        with self._changed:
            found: list[Item] = []
            size = 0
            for place in list(self._places)[:max_items]:
                if found and size + place.length > max_bytes:
                    break
                data = self._read(place)
                if data is None:
                    # Gone or damaged under our hands: nothing can bring it back.
                    self._forget(place)
                    self.damaged += 1
                    continue
                found.append(Item(place.number, data))
                size += place.length
            return found

    def wait(self, timeout: float) -> bool:
        """Wait until an item is there; False when the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._places), timeout)

    def done(self, number: int) -> None:
        """Forget the items up to and with this number. Never raises: at worst they come again after a restart."""
        with self._changed:
            while self._places and self._places[0].number <= number:
                self._forget(self._places[0])
            self._note_acked(number)

    def _scan(self) -> None:
        """Find what an earlier process left."""
        acked = self._read_acked()
        self._number = acked
        found: list[_Place] = []
        for path in sorted(self._folder.glob("*.spool")):
            if not path.stem.isdigit():
                continue
            segment = int(path.stem)
            self._segment = max(self._segment, segment)
            places, whole = _places_of(path, segment)
            self.damaged += not whole
            self._number = max([self._number, *(place.number for place in places)])
            found += [place for place in places if place.number > acked]
        for place in sorted(found, key=lambda one: one.number):
            self._add(place)
        for path in self._folder.glob("*.spool"):
            if path.stem.isdigit() and not self._wanted[int(path.stem)]:
                path.unlink()
        self._keep_bounds()

    def _write(self, items: Sequence[Item]) -> list[_Place]:
        """Append to the current segment and make it durable; all of them or none. Raises OSError."""
        if self._file is not None and self._file.tell() >= self._segment_bytes:
            self._file.close()
            self._file = None
            self._remove_if_done(self._segment)
        if self._file is None:
            self._segment += 1
            self._file = open(self._path(self._segment), "xb", buffering=0)  # noqa: SIM115 - stays open
            files.sync_folder(self._folder)
        start = self._file.tell()
        places, offset = [], start
        for item in items:
            places.append(_Place(item.number, len(item.data), self._segment, offset + _FRAME.size))
            offset += _FRAME.size + len(item.data)
        try:
            data = memoryview(b"".join(_framed(item) for item in items))
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError:
            # What is half written must not stand before what comes later.
            file, self._file = self._file, None
            with suppress(OSError):
                file.truncate(start)
            with suppress(OSError):
                file.close()
            self._remove_if_done(self._segment)
            raise
        return places

    def _add(self, place: _Place) -> None:
        self._places.append(place)
        self._bytes += place.length
        if place.data is not None:
            self._in_memory += place.length
        else:
            self._wanted[place.segment] += 1

    def _settle(self, places: Sequence[_Place]) -> None:
        """Items that waited in memory lie on disk now."""
        moved = {place.number: place for place in places}
        if moved:
            self._places = deque(moved.get(place.number, place) for place in self._places)
            self._in_memory -= sum(place.length for place in places)
            for place in places:
                self._wanted[place.segment] += 1

    def _forget(self, place: _Place) -> None:
        self._places.remove(place)
        self._bytes -= place.length
        if place.data is not None:
            self._in_memory -= place.length
            return
        self._wanted[place.segment] -= 1
        current = self._file is not None and place.segment == self._segment
        if not current:
            self._remove_if_done(place.segment)

    def _remove_if_done(self, segment: int) -> None:
        if not self._wanted[segment]:
            del self._wanted[segment]
            with suppress(OSError):
                self._path(segment).unlink()

    def _keep_bounds(self) -> None:
        last = 0
        while self._bytes > self._limit and len(self._places) > 1:
            last = self._places[0].number
            self._forget(self._places[0])
            self.dropped += 1
        while self._in_memory > _MEMORY_BYTES:
            self._forget(next(place for place in self._places if place.data is not None))
            self.dropped += 1
        if last:
            self._note_acked(last)

    def _read(self, place: _Place) -> bytes | None:
        if place.data is not None:
            return place.data
        try:
            with open(self._path(place.segment), "rb") as file:
                file.seek(place.offset - _FRAME.size)
                head, data = file.read(_FRAME.size), file.read(place.length)
        except OSError:
            return None
        return data if len(head) == _FRAME.size and _is_whole(head, data) else None

    def _note_acked(self, number: int) -> None:
        with suppress(OSError):
            if self._acked is None:
                path = self._folder / "acked"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                self._acked = os.fdopen(descriptor, "r+b", buffering=0)
            raw = struct.pack(">Q", number)
            os.pwrite(self._acked.fileno(), _ACKED.pack(number, zlib.crc32(raw)), 0)

    def _read_acked(self) -> int:
        try:
            data = (self._folder / "acked").read_bytes()
        except FileNotFoundError:
            return 0
        if len(data) != _ACKED.size:
            return 0
        number, checksum = _ACKED.unpack(data)
        return int(number) if zlib.crc32(data[:8]) == checksum else 0

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:08d}.spool"


def _framed(item: Item) -> bytes:
    number = struct.pack(">Q", item.number)
    checksum = zlib.crc32(item.data, zlib.crc32(number))
    return _FRAME.pack(_MARK, len(item.data), checksum, item.number) + item.data


def _is_whole(head: bytes, data: bytes) -> bool:
    mark, length, checksum, number = _FRAME.unpack(head)
    return bool(
        mark == _MARK and length == len(data) and zlib.crc32(data, zlib.crc32(struct.pack(">Q", number))) == checksum
    )


def _places_of(path: Path, segment: int) -> tuple[list[_Place], bool]:
    """The whole items of a segment up to its first damage, and whether there was none. Raises OSError."""
    places: list[_Place] = []
    offset = 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while head := file.read(_FRAME.size):
            if len(head) < _FRAME.size:
                return places, False
            mark, length, _, number = _FRAME.unpack(head)
            if mark != _MARK or offset + _FRAME.size + length > size:
                return places, False
            if not _is_whole(head, file.read(length)):
                return places, False
            places.append(_Place(int(number), length, segment, offset + _FRAME.size))
            offset += _FRAME.size + length
    return places, True
