"""A folder that live streams write their final faces to, bounded in age and size.

OUT/.streamgate/lock                                    who writes
OUT/<stream>/<YYYY-MM-DD>/<epoch>/track_0001/1.png      the crop, FFHQ-aligned; the name is the rank
OUT/<stream>/<YYYY-MM-DD>/faces.jsonl                   a line a kept face of that day (UTC), as in DESIGN 6

What is too old or too much is removed oldest first: crops one by one, and a day's records with its last crop.
"""

from __future__ import annotations

import heapq
import os
import re
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from streamgate.errors import SinkError
from streamgate.frames import BestShot
from streamgate.store import files
from streamgate.store.images import encode_png
from streamgate.store.jsonlines import Record, dumps
from streamgate.store.layout import FACES, STATE_DIR, has_manifest
from streamgate.store.lock import Lock

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class LiveFolder:
    """See the module. A context manager; `write` and `tidy` are thread-safe.

    Args:
        out: made when it is missing.
        max_days: crops older than this are removed; None keeps them.
        max_bytes: of all that streams wrote below `out`; None for no bound.

    Entering raises SinkError: the folder is in use, not writable, or holds the results of `run`.
    """

    def __init__(self, out: Path, *, max_days: float | None = None, max_bytes: int | None = None) -> None:
        self.removed = 0
        """Crops removed because of age or size."""
        self.display = str(out)
        self._out = Path(out)
        self._max_age = None if max_days is None else max_days * 86400
        self._max_bytes = max_bytes
        self._lock = Lock(self._out)
        self._mutex = threading.Lock()
        self._bytes = 0
        self._crops: list[tuple[float, str, int]] = []
        self._left: Counter[Path] = Counter()

    def __enter__(self) -> Self:
        with files.sink_errors(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
            files.make_folder(self._out, STATE_DIR)
        if has_manifest(self._out):
            raise SinkError(f"{self._out} holds the results of `streamgate run`; choose another folder with --out")
        self._lock.acquire()
        try:
            with files.sink_errors(self._out):
                self._scan()
        except BaseException:
            self._lock.release()
            raise
        self.tidy()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def size(self) -> int:
        """Bytes that streams wrote below the folder and that are still there."""
        return self._bytes

    @staticmethod
    def place(shot: BestShot) -> str:
        """Where a shot's crop goes, relative to OUT with `/`."""
        captured = shot.captured_at
        if captured is None:
            raise ValueError("a live shot needs captured_at")
        day = captured.strftime("%Y-%m-%d")
        return f"{shot.source_id}/{day}/{shot.epoch}/track_{shot.track.track_id:04d}/{shot.rank}.png"

    def write(self, shot: BestShot, record: Record) -> None:
        """Write a crop and then its record (whose `image` is `place(shot)`), both durably. Raises SinkError."""
        place = self.place(shot)
        path = self._out / place
        folder = place.rpartition("/")[0]
        day = "/".join(place.split("/")[:2])
        data = encode_png(shot.image)
        line = dumps(record)
        with self._mutex, files.sink_errors(path):
            files.make_folder(self._out, folder)
            files.write_bytes(self._out, place, data)
            files.append_line(self._out, f"{day}/{FACES}", line)
            self._bytes += len(line.encode()) + 1
            self._add(path, time.time(), len(data))
        self.tidy()

    def tidy(self) -> None:
        """Remove what is too old or too much. Never raises."""
        now = time.time()
        with self._mutex:
            while self._crops and self._is_due(now):
                _, name, size = heapq.heappop(self._crops)
                self._remove(self._out / name, size)

    def _is_due(self, now: float) -> bool:
        too_old = self._max_age is not None and now - self._crops[0][0] > self._max_age
        # The newest stays, whatever the bound: else a small one would remove each crop as it comes.
        too_much = self._max_bytes is not None and self._bytes > self._max_bytes and len(self._crops) > 1
        return too_old or too_much

    def _scan(self) -> None:
        """Find what earlier processes wrote: nothing but days of streams."""
        for day in self._out.glob("*/*/"):
            if not _DAY.fullmatch(day.name) or day.parent.name.startswith(".") or day.parent.is_symlink():
                continue
            with suppress(FileNotFoundError):
                self._bytes += (day / FACES).stat().st_size
            for path in day.glob("*/track_*/*.png"):
                found = path.stat()
                self._add(path, found.st_mtime, found.st_size)

    def _add(self, path: Path, when: float, size: int) -> None:
        self._bytes += size
        if self._max_age is not None or self._max_bytes is not None:
            heapq.heappush(self._crops, (when, str(path.relative_to(self._out)), size))
            self._left[path.parents[2]] += 1

    def _remove(self, path: Path, size: int) -> None:
        with suppress(OSError):
            path.unlink()
        self._bytes -= size
        self.removed += 1
        day = path.parents[2]
        self._left[day] -= 1
        if not self._left[day]:
            del self._left[day]
            with suppress(OSError):
                length = (day / FACES).stat().st_size
                (day / FACES).unlink()
                self._bytes -= length
        for folder in (path.parent, path.parent.parent, day):
            try:
                os.rmdir(folder)
            except OSError:
                break
