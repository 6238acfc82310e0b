"""A bounded queue on disk that keeps its items in order, even when the process is killed.

FOLDER/lock                 held by the process that uses the folder
FOLDER/acked                number of the last acknowledged item
FOLDER/00000001.spool       segments: consecutive framed items, appended and fsynced (see segments.py)
FOLDER/damaged/             segments with unreadable places, moved here once their intact items are acknowledged

Each item is returned at least once: the number in `acked` is not fsynced for every item, so some items may be
returned again after a power failure. A segment is removed when all of its items are acknowledged.
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
from streamgate.service.segments import (
    DAMAGED,
    FRAME,
    MAX_NUMBER,
    Item,
    ItemLocation,
    framed,
    not_a_spool,
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
"""Maximum total size of the items that are held in memory while the disk cannot be written to."""


_SET_ASIDE_BYTES = 256 << 20
"""Maximum total size of the damaged segments that are kept; the oldest ones are removed first."""
_NAMED = 3
"""Maximum number of segments that a message names."""


class Spool:
    """See the module. A context manager; thread-safe.

    When the spool exceeds `limit_bytes`, the oldest items are dropped and counted. An item that cannot be written
    because the disk is full or failing is held in memory and keeps its place in the order; `append` returns the error.
    At most 64 MiB are held in memory.

    Damage in a segment affects only the items in the damaged places. Damage is counted and logged, and the damaged
    segment is kept in FOLDER/damaged.

    Args:
        folder: created when missing, accessible only to its owner.
        limit_bytes: total size of all waiting items.
        root: the output folder that contains `folder`; below `root`, no link is followed. None if `folder` is not in
            an output folder.
        log: called with a one-line message when damage is found.

    Entering raises SinkError if the folder is in use by another process, is not writable, or holds files that were not
    written by a spool.
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
        """Number of items that were dropped because the limit was reached."""
        self.damaged = 0
        """Number of unreadable places; each is a stretch of a segment, a single item, or the number in `acked`."""
        self.set_aside = 0
        """Number of segments that were moved to FOLDER/damaged."""
        self._folder = folder
        self._root = root
        self._log = log
        self._hurt: set[int] = set()
        """Damaged segments, which are set aside instead of removed once their items are acknowledged."""
        self._limit = limit_bytes
        self._segment_bytes = segment_bytes or max(1, min(_SEGMENT_BYTES, limit_bytes // 8))
        self._set_aside_bytes: int | None = None
        """Total size of the segments in FOLDER/damaged; None until it has been determined."""
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
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make everything durable, including the items held in memory if the disk can be written to again."""
        with self._changed:
            held = [location for location in self._locations if location.data is not None]
            with suppress(OSError):
                if held:
                    self._write([(location.number, location.data or b"") for location in held])
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
        """Number of waiting items."""
        with self._changed:
            return len(self._locations)

    @property
    def size(self) -> int:
        """Size of the waiting items in bytes."""
        with self._changed:
            return self._bytes

    def append(self, items: Sequence[bytes]) -> tuple[list[int], SinkError | None]:
        """Durably add items at the end.

        Returns the items' numbers and the disk's error, if any; after an error, the items are held only in memory. Disk
        errors are never raised.
        """
        with self._changed:
            numbered = list(enumerate(items, self._number + 1))
            self._number += len(items)
            problem = None
            held = [location for location in self._locations if location.data is not None]
            try:
                # Items that an earlier call could not write are written first, to keep the order.
                locations = self._write([*((one.number, one.data or b"") for one in held), *numbered])
                self._settle(locations[: len(held)])
            except OSError as error:
                problem = files.sink_error(error, self._folder)
                held = []
                locations = [ItemLocation(number, len(data), 0, 0, data) for number, data in numbered]
            for location in locations[len(held) :]:
                self._add(location)
            self._keep_bounds()
            self._changed.notify_all()
            return [number for number, _ in numbered], problem

    def peek(self, max_items: int, max_bytes: int) -> list[Item]:
        """The oldest items, at least one if any are waiting; they stay in the spool until `done` is called."""
        with self._changed:
            found: list[Item] = []
            size = 0
            for location in list(islice(self._locations, max_items)):
                if found and size + location.length > max_bytes:
                    break
                data = self._read(location)
                if data is None:
                    # The file was removed or damaged after the item was written; the item cannot be recovered.
                    self.damaged += 1
                    if location.segment not in self._hurt:
                        self._hurt.add(location.segment)
                        self._log(
                            f"spool: {segment_name(location.segment)} was damaged while its events were waiting; "
                            "the damaged events are lost"
                        )
                    self._forget(location)
                    continue
                found.append((location.number, data))
                size += location.length
            return found

    def wait(self, timeout: float) -> bool:
        """Wait until the spool has an item; returns False if it is still empty after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._locations), timeout)

    def done(self, number: int) -> None:
        """Acknowledge items up to and including `number`.

        Never raises: at worst, these items are returned again after a restart.
        """
        with self._changed:
            while self._locations and self._locations[0].number <= number:
                self._forget(self._locations[0])
            self._note_acked(number)

    def _scan(self) -> None:
        """Find the items that an earlier process left behind. Raises OSError and SinkError."""
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
            raise not_a_spool(self._folder, f"an event has the number {self._number}, which is too large")
        self._segment = max(segments, default=0)
        for location in sorted(found, key=lambda one: one.number):
            self._add(location)
        for segment in segments:
            self._remove_if_done(segment)
        if hurt:
            more = f" and {len(hurt) - _NAMED} more" if len(hurt) > _NAMED else ""
            self._log(
                f"spool: damaged places in {', '.join(hurt[:_NAMED])}{more}: {self.damaged}; the intact events in "
                f"these files ({rescued}) are sent, and the files are kept in {self._folder / DAMAGED}"
            )
        self._keep_bounds()

    def _write(self, items: Sequence[Item]) -> list[ItemLocation]:
        """Durably append all items to the current segment, or none of them if there is an error. Raises OSError."""
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
        for number, item in items:
            locations.append(ItemLocation(number, len(item), self._segment, offset + FRAME.size))
            offset += FRAME.size + len(item)
        try:
            data = memoryview(b"".join(framed(item) for item in items))
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError:
            # A partial write must not remain in front of later items.
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
        """Record that items that were held in memory are now on disk, at `locations`."""
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
        """Keep a damaged segment for inspection. Raises OSError."""
        kept = self._folder / DAMAGED
        kept.mkdir(mode=0o700, exist_ok=True)
        stem, number = self._path(segment).stem, 0
        while (target := kept / f"{stem}{f'-{number}' if number else ''}.spool").exists():
            number += 1
        self._path(segment).rename(target)
        self.set_aside += 1
        if self._set_aside_bytes is not None:
            self._set_aside_bytes += target.stat().st_size
        # The folder is scanned only when the limit is exceeded: a scan for each segment would take quadratic time.
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
        """The number of the last acknowledged item. Raises OSError and SinkError."""
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
        self._log("spool: the number of the last delivered event is damaged; some events may be sent again")
        return 0

    def _path(self, segment: int) -> Path:
        return self._folder / segment_name(segment)


def _bounded(kept: Path, most: int) -> int:
    """Remove a folder's oldest segments until at most `most` bytes are left, but never remove the newest segment.

    Returns the size of the remaining segments in bytes. Raises OSError.
    """
    found = [(path, path.lstat()) for path in kept.glob("*.spool")]
    found.sort(key=lambda one: one[1].st_mtime)
    size = sum(status.st_size for _, status in found)
    for path, status in found[:-1]:
        if size <= most:
            break
        path.unlink()
        size -= status.st_size
    return size
