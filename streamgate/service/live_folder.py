"""The folder to which live streams write their final faces, with limits on age and size.

OUT/.streamgate/lock                                    held by the writing process
OUT/<stream>/<YYYY-MM-DD>/<epoch>/track_0001/1.png      the crop, FFHQ-aligned; the name is the rank
OUT/<stream>/<YYYY-MM-DD>/faces.jsonl                   one line per kept face of that day (UTC), see docs/design.md 6

When a limit is exceeded, the oldest files are removed first: crops one by one, and the records of a day together with
its last crop.
"""

from __future__ import annotations

import heapq
import re
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from streamgate.errors import SinkError
from streamgate.store import files
from streamgate.store.images import encode_png
from streamgate.store.jsonlines import Record, dumps
from streamgate.store.layout import FACES, STATE_DIR, has_manifest
from streamgate.store.lock import Lock
from streamgate.tracks import BestShot

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class LiveFolder:
    """See the module. A context manager; `write` and `tidy` are thread-safe.

    Args:
        out: the folder, which is created if it does not exist.
        max_days: crops that are older than this many days are removed; None keeps all crops.
        max_bytes: limit for the total size of all files that streams wrote below `out`; None for no limit.

    Entering raises SinkError if the folder is in use, is not writable, or holds the results of `streamgate run`.
    """

    def __init__(self, out: Path, *, max_days: float | None = None, max_bytes: int | None = None) -> None:
        self.removed = 0
        """Number of crops that were removed because of age or size."""
        self.display = str(out)
        self._out = Path(out)
        self._max_age = None if max_days is None else max_days * 86400
        self._max_bytes = max_bytes
        self._lock = Lock(self._out)
        self._mutex = threading.Lock()
        self._bytes = 0
        self._crops: list[tuple[float, str, int]] = []
        self._left: Counter[str] = Counter()

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
        """Size in bytes of all files that streams wrote below the folder, without files removed since."""
        return self._bytes

    @staticmethod
    def relative_path(shot: BestShot) -> str:
        """Path of a shot's crop, relative to OUT, with `/`."""
        captured = shot.captured_at
        if captured is None:
            raise ValueError("a live shot needs captured_at")
        day = captured.strftime("%Y-%m-%d")
        return f"{shot.source_id}/{day}/{shot.epoch}/track_{shot.track.track_id:04d}/{shot.rank}.png"

    def write(self, shot: BestShot, record: Record) -> None:
        """Durably write a crop, then its record, whose `image` is `relative_path(shot)`. Raises SinkError."""
        relative_path = self.relative_path(shot)
        data = encode_png(shot.image)
        line = dumps(record)
        with self._mutex, files.sink_errors(self._out / relative_path):
            files.make_folder(self._out, relative_path.rpartition("/")[0])
            files.write_bytes(self._out, relative_path, data)
            files.append_line(self._out, f"{_day_of(relative_path)}/{FACES}", line)
            self._bytes += len(line.encode()) + 1
            self._add(relative_path, time.time(), len(data))
        self.tidy()

    def tidy(self) -> None:
        """Remove the oldest crops until no limit of age or size is exceeded. Never raises."""
        now = time.time()
        with self._mutex:
            while self._crops and self._is_due(now):
                _, name, size = heapq.heappop(self._crops)
                self._remove(name, size)

    def _is_due(self, now: float) -> bool:
        too_old = self._max_age is not None and now - self._crops[0][0] > self._max_age
        # The newest crop always stays; otherwise, a small limit would remove each crop as soon as it is written.
        too_much = self._max_bytes is not None and self._bytes > self._max_bytes and len(self._crops) > 1
        return too_old or too_much

    def _scan(self) -> None:
        """Find the files that earlier processes wrote. Only the day folders of streams are searched; links are not
        followed."""
        for day in self._out.glob("*/*/"):
            if not _DAY.fullmatch(day.name) or day.parent.name.startswith(".") or self._is_linked(day):
                continue
            with suppress(FileNotFoundError):
                self._bytes += (day / FACES).lstat().st_size
            for path in day.glob("*/track_*/*.png"):
                if not self._is_linked(path):
                    found = path.stat()
                    self._add(path.relative_to(self._out).as_posix(), found.st_mtime, found.st_size)

    def _is_linked(self, path: Path) -> bool:
        return any(one.is_symlink() for one in (path, *path.parents[: len(path.relative_to(self._out).parts) - 1]))

    def _add(self, name: str, when: float, size: int) -> None:
        self._bytes += size
        if self._max_age is not None or self._max_bytes is not None:
            heapq.heappush(self._crops, (when, name, size))
            self._left[_day_of(name)] += 1

    def _remove(self, name: str, size: int) -> None:
        gone, day = [name], _day_of(name)
        self._bytes -= size
        self.removed += 1
        self._left[day] -= 1
        if not self._left[day]:
            del self._left[day]
            with suppress(OSError):
                self._bytes -= (self._out / day / FACES).lstat().st_size
                gone.append(f"{day}/{FACES}")
        with suppress(OSError):
            files.remove_listed(self._out, gone)


def _day_of(name: str) -> str:
    """The folder of the day that a crop belongs to."""
    return "/".join(name.split("/")[:2])
