"""A bounded queue on disk: what was put in leaves in order, also after the process was killed.

FOLDER/lock                 who uses it
FOLDER/acked                number of the last item that was done with
FOLDER/00000001.spool       segments: one framed item after the other, appended and fsynced (see segments.py)
FOLDER/damaged/             segments in which something could not be read, set aside once their sound items are done

Items are done with at least once: the number in `acked` is not fsynced with every item, so after a power cut some
come out again. A segment is removed when none of its items is wanted any more.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from streamgate.errors import SinkError
from streamgate.sinks.segments import (
    DAMAGED,
    FRAME,
    MAX_NUMBER,
    Item,
    ItemLocation,
    NotASpoolError,
    framed,
    open_regular,
    read_item,
    scan,
    segment_name,
    segments_in,
)
from streamgate.store import files
from streamgate.store.lock import Lock

_ACKED = struct.Struct(">QI")
_SEGMENT_BYTES = 16 << 20
_MEMORY_BYTES = 64 << 20
"""Items held in memory while the disk takes none."""


_SET_ASIDE_BYTES = 256 << 20
"""Of damaged segments that are kept; beyond it the oldest is removed."""
_NAMED = 3
"""Segments that a message names."""


class Spool:
    """See the module. A context manager; thread-safe.

    Past `limit_bytes` the oldest items are dropped and counted. An item that the disk refuses (full, broken) waits
    in memory, up to 64 MiB, and `append` says so; it keeps its place in the order.

    What cannot be read costs itself alone, is counted, and told to `log`; its segment is kept in FOLDER/damaged.

    Args:
        folder: made when it is missing, readable by its owner alone.
        limit_bytes: of all items that wait.
        root: an output folder that `folder` is in, where no link is followed; None where it is in none.
        log: takes a line about damage.

    Entering raises SinkError: the folder is in use by another process, not writable, or holds what no spool has
    written.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        *,
        root: Path | None = None,
        segment_bytes: int | None = None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.dropped = 0
        """Items dropped because the bound was reached."""
        self.damaged = 0
        """Places that could not be read: stretches of segments, single items, the number in `acked`."""
        self.set_aside = 0
        """Segments that were moved to FOLDER/damaged."""
        self._folder = folder
        self._root = root
        self._log = log
        self._hurt: set[int] = set()
        """Segments that are not to be removed when they are done with."""
        self._limit = limit_bytes
        self._segment_bytes = segment_bytes or max(1, min(_SEGMENT_BYTES, limit_bytes // 8))
        self._set_aside_bytes: int | None = None
        """Of all segments in FOLDER/damaged; None until it was looked at."""
        self._lock = Lock(folder, "lock")
        self._changed = threading.Condition()
        self._locations: deque[ItemLocation] = deque()
        self._wanted: Counter[int] = Counter()
        self._bytes = 0
        self._in_memory = 0
        self._number = 0
        self._segment = 0
        self._file: IO[bytes] | None = None
        self._acked: IO[bytes] | None = None

    def __enter__(self) -> Self:
        with files.sink_errors(self._folder):
            if self._root is None:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            else:
                files.make_folder(self._root, self._folder.relative_to(self._root).as_posix(), 0o700)
        self._lock.acquire()
        try:
            with files.sink_errors(self._folder):
                self._scan()
        except NotASpoolError as error:
            self._lock.release()
            raise SinkError(
                f"{self._folder}: {error}; it was not written by `streamgate serve`: move it away, or give another "
                "folder with --spool"
            ) from None
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make everything durable, items held in memory too where the disk takes them by now."""
        with self._changed:
            held = [location for location in self._locations if location.data is not None]
            with suppress(OSError):
                if held:
                    self._write([Item(location.number, location.data or b"") for location in held])
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
            return len(self._locations)

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
            numbered = [Item(self._number + index, data) for index, data in enumerate(items, 1)]
            self._number += len(items)
            problem = None
            held = [location for location in self._locations if location.data is not None]
            try:
                # Those that the disk refused before come first.
                locations = self._write([*(Item(one.number, one.data or b"") for one in held), *numbered])
                self._settle(locations[: len(held)])
            except OSError as error:
                problem = files.sink_error(error, self._folder)
                held = []
                locations = [ItemLocation(item.number, len(item.data), 0, 0, item.data) for item in numbered]
            for location in locations[len(held) :]:
                self._add(location)
            self._keep_bounds()
            self._changed.notify_all()
            return [item.number for item in numbered], problem

    def peek(self, max_items: int, max_bytes: int) -> list[Item]:
        """The oldest items, at least one when any waits; they stay until `done`."""
        with self._changed:
            found: list[Item] = []
            size = 0
            for location in list(islice(self._locations, max_items)):
                if found and size + location.length > max_bytes:
                    break
                data = self._read(location)
                if data is None:
                    # Gone or damaged under our hands: nothing can bring it back.
                    self.damaged += 1
                    if location.segment not in self._hurt:
                        self._hurt.add(location.segment)
                        self._log(f"spool: {segment_name(location.segment)} was damaged while its events waited")
                    self._forget(location)
                    continue
                found.append(Item(location.number, data))
                size += location.length
            return found

    def wait(self, timeout: float) -> bool:
        """Wait until an item is there; False when the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._locations), timeout)

    def done(self, number: int) -> None:
        """Forget the items up to and with this number. Never raises: at worst they come again after a restart."""
        with self._changed:
            while self._locations and self._locations[0].number <= number:
                self._forget(self._locations[0])
            self._note_acked(number)

    def _scan(self) -> None:
        """Find what an earlier process left. Raises OSError and NotASpoolError."""
        acked = self._read_acked()
        found: list[ItemLocation] = []
        segments, hurt = segments_in(self._folder), list[str]()
        rescued = 0
        for segment in segments:
            locations, stretches = scan(self._path(segment), segment)
            wanted = [location for location in locations if location.number > acked]
            found += wanted
            if stretches:
                self.damaged += stretches
                self._hurt.add(segment)
                hurt.append(segment_name(segment))
                rescued += len(wanted)
            self._number = max([self._number, *(location.number for location in locations)])
        self._number = max(self._number, acked)
        if self._number > MAX_NUMBER:
            raise NotASpoolError(f"an event has the number {self._number}")
        self._segment = max(segments, default=0)
        for location in sorted(found, key=lambda one: one.number):
            self._add(location)
        for segment in segments:
            self._remove_if_done(segment)
        if hurt:
            more = f" and {len(hurt) - _NAMED} more" if len(hurt) > _NAMED else ""
            self._log(
                f"spool: {self.damaged} damaged places in {', '.join(hurt[:_NAMED])}{more}; {rescued} events beside "
                f"them are sent, the files are kept in {self._folder / DAMAGED}"
            )
        self._keep_bounds()

    def _write(self, items: Sequence[Item]) -> list[ItemLocation]:
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
        locations, offset = [], start
        for item in items:
            locations.append(ItemLocation(item.number, len(item.data), self._segment, offset + FRAME.size))
            offset += FRAME.size + len(item.data)
        try:
            data = memoryview(b"".join(framed(item) for item in items))
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
        return locations

    def _add(self, location: ItemLocation) -> None:
        self._locations.append(location)
        self._bytes += location.length
        if location.data is not None:
            self._in_memory += location.length
        else:
            self._wanted[location.segment] += 1

    def _settle(self, locations: Sequence[ItemLocation]) -> None:
        """Items that waited in memory lie on disk now."""
        moved = {location.number: location for location in locations}
        if moved:
            self._locations = deque(moved.get(location.number, location) for location in self._locations)
            self._in_memory -= sum(location.length for location in locations)
            for location in locations:
                self._wanted[location.segment] += 1

    def _forget(self, location: ItemLocation) -> None:
        self._locations.remove(location)
        self._bytes -= location.length
        if location.data is not None:
            self._in_memory -= location.length
            return
        self._wanted[location.segment] -= 1
        current = self._file is not None and location.segment == self._segment
        if not current:
            self._remove_if_done(location.segment)

    def _remove_if_done(self, segment: int) -> None:
        if self._wanted[segment]:
            return
        del self._wanted[segment]
        with suppress(OSError):
            if segment in self._hurt:
                self._hurt.discard(segment)
                self._set_aside(segment)
            else:
                self._path(segment).unlink()

    def _set_aside(self, segment: int) -> None:
        """Keep a segment for whoever wants to look at what could not be read. Raises OSError."""
        kept = self._folder / DAMAGED
        kept.mkdir(mode=0o700, exist_ok=True)
        stem, number = self._path(segment).stem, 0
        while (target := kept / f"{stem}{f'-{number}' if number else ''}.spool").exists():
            number += 1
        self._path(segment).rename(target)
        self.set_aside += 1
        if self._set_aside_bytes is not None:
            self._set_aside_bytes += target.stat().st_size
        # A look at all of them for each one would take time by the square of their number.
        if self._set_aside_bytes is None or self._set_aside_bytes > _SET_ASIDE_BYTES:
            self._set_aside_bytes = _bounded(kept, _SET_ASIDE_BYTES)

    def _keep_bounds(self) -> None:
        last = 0
        while self._bytes > self._limit and len(self._locations) > 1:
            last = self._locations[0].number
            self._forget(self._locations[0])
            self.dropped += 1
        while self._in_memory > _MEMORY_BYTES:
            self._forget(next(location for location in self._locations if location.data is not None))
            self.dropped += 1
        if last:
            self._note_acked(last)

    def _read(self, location: ItemLocation) -> bytes | None:
        return location.data if location.data is not None else read_item(self._path(location.segment), location)

    def _note_acked(self, number: int) -> None:
        with suppress(OSError):
            if self._acked is None:
                path = self._folder / "acked"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                self._acked = os.fdopen(descriptor, "r+b", buffering=0)
            raw = struct.pack(">Q", number)
            os.pwrite(self._acked.fileno(), _ACKED.pack(number, zlib.crc32(raw)), 0)

    def _read_acked(self) -> int:
        """The number of the last item that was done with. Raises OSError and NotASpoolError."""
        try:
            with open_regular(self._folder / "acked") as file:
                data = file.read(_ACKED.size + 1)
        except FileNotFoundError:
            return 0
        if len(data) == _ACKED.size:
            number, checksum = _ACKED.unpack(data)
            if zlib.crc32(data[:8]) == checksum:
                return int(number)
        self.damaged += 1
        self._log("spool: the number of the last event that arrived is damaged; those that wait may arrive again")
        return 0

    def _path(self, segment: int) -> Path:
        return self._folder / segment_name(segment)


def _bounded(kept: Path, most: int) -> int:
    """Remove the oldest segments of a folder beyond so many bytes, never the newest; the bytes left. Raises OSError."""
    found = [(path, path.lstat()) for path in kept.glob("*.spool")]
    found.sort(key=lambda one: one[1].st_mtime)
    size = sum(status.st_size for _, status in found)
    for path, status in found[:-1]:
        if size <= most:
            break
        path.unlink()
        size -= status.st_size
    return size
