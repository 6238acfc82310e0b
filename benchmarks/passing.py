"""Makes one pass over one or several files at once and records the use of memory, for `scale.py`.

    python benchmarks/passing.py FILE... [--preset studio] [--models embedded] [--set key=value]

Prints one JSON object. Times exclude start-up; decoding alone is measured first, in the same process.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Self

from common import arguments
from contestants import open_decoder
from processes import answer, cpu_seconds, peak_mib, resident_mib

SAMPLE_S = 10.0
"""Interval between two measurements of memory, in seconds of video."""


class Ignoring:
    """A base class for progress listeners and sinks, with methods that do nothing."""

    def ignore(self, *what: Any) -> None:
        pass

    opening = started = advanced = closed = finished = ignore
    __exit__ = evaluated = commit = discard = finish = ignore


class MemoryLog(Ignoring):
    """A progress listener that records resident memory while the first source that reports is read."""

    def __init__(self, every_s: float) -> None:
        self.samples: list[tuple[float, float]] = []
        self._every = every_s
        self._next = 0.0
        self._source: Any = None
        self._mutex = threading.Lock()

    def advanced(self, source: Any, frames: int, pts_seconds: float, kept: int) -> None:
        with self._mutex:
            if self._source is None:
                self._source = source
            if source is self._source and pts_seconds >= self._next:
                self._next = pts_seconds + self._every
                self.samples.append((round(pts_seconds, 2), round(resident_mib(), 2)))


class Counter(Ignoring):
    """A sink that only counts tracks and kept faces, so that it uses no memory. `collecting.Collector` extends it."""

    def __init__(self) -> None:
        self.tracks = self.kept = 0

    def __enter__(self) -> Self:
        return self

    def open_source(self, source: Any) -> Self:
        return self

    def track(self, ended: Any) -> None:
        self.tracks += 1
        self.kept += len(ended.shots)


def run(engine: Any, files: list[Path], sink: Counter, progress: Any = None) -> list[Any]:
    """Read all files at once, with the given sink. Raises ValueError if a file fails."""
    from streamgate.sources import open_source

    opened = [partial(open_source, file) for file in files]
    results = engine.run(opened, sink, jobs=len(files), **({"progress": progress} if progress else {}))
    for file, result in zip(files, results, strict=True):
        if result.status != "done":
            raise ValueError(f"{file.name}: {result.error or result.status}")
    return list(results)


def main() -> dict[str, Any]:
    from streamgate.config import load_config
    from streamgate.engine import Engine

    parser = arguments(__doc__, videos=False, gate=True, results=None)
    parser.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args()
    files: list[Path] = given.files
    decode = open_decoder(given.models)
    began = cpu_seconds()
    seconds = decode(files[0]).video_seconds
    decode_cpu = (cpu_seconds() - began) * len(files)
    config = load_config(given.preset, given.settings)
    with Engine(config, models=given.models, device="cpu") as engine:
        log, sink = MemoryLog(min(SAMPLE_S, seconds / 10)), Counter()
        began, began_wall = cpu_seconds(), time.monotonic()
        results = run(engine, files, sink, log)
        cpu, wall = cpu_seconds() - began, time.monotonic() - began_wall
    return {
        "seconds": sum(result.duration_seconds for result in results),
        "cpu": cpu,
        "decode_cpu": decode_cpu,
        "wall": wall,
        "peak_mib": peak_mib(),
        "tracks": sink.tracks,
        "kept": sink.kept,
        "memory": log.samples,
    }


if __name__ == "__main__":
    answer(main)
