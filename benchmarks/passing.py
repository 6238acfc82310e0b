"""One pass over one or several files at once, with memory as it goes on, for `scale.py`.

    python benchmarks/passing.py FILE... [--preset studio] [--models embedded] [--set key=value]

Prints one JSON object. Times are without start-up; decoding alone is measured first, in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from contestants import cpu_seconds, open_decoder, peak_mib

from streamgate.defaults import DEFAULT_MODELS

SAMPLE_S = 10.0
"""Memory is read about every so many seconds of video."""


class MemoryLog:
    """A run's progress that reads resident memory as video time goes by, of the first source to be heard of."""

    def __init__(self, every_s: float) -> None:
        self.samples: list[tuple[float, float]] = []
        self._every = every_s
        self._next = 0.0
        self._source: Any = None
        self._mutex = threading.Lock()

    def opening(self, index: int) -> None:
        pass

    def started(self, source: Any) -> None:
        pass

    def advanced(self, source: Any, frames: int, pts_seconds: float, kept: int) -> None:
        with self._mutex:
            if self._source is None:
                self._source = source
            if source is self._source and pts_seconds >= self._next:
                self._next = pts_seconds + self._every
                self.samples.append((round(pts_seconds, 2), round(resident_mib(), 2)))

    def closed(self, source: Any) -> None:
        pass

    def finished(self, result: Any) -> None:
        pass


class Counter:
    """A sink that forgets faces: counting is enough here, and memory is what is measured."""

    def __init__(self) -> None:
        self.tracks = self.kept = 0

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *what: object) -> None:
        pass

    def open_source(self, source: Any) -> Counter:
        return self

    def evaluated(self, candidate: Any) -> None:
        pass

    def track(self, ended: Any) -> None:
        self.tracks += 1
        self.kept += len(ended.shots)

    def commit(self, result: Any) -> None:
        pass

    def discard(self) -> None:
        pass

    def finish(self, results: Any, timing: Any) -> None:
        pass


def resident_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(files: list[Path], preset: str, models: str, settings: list[str]) -> dict[str, Any]:
    """Run the files, all at once."""
    from streamgate import Gate
    from streamgate.sources import open_source

    decode = open_decoder(models)
    began = cpu_seconds()
    seconds = sum(decode(file).video_seconds for file in files[:1]) * len(files)
    decode_cpu = (cpu_seconds() - began) * len(files)
    with Gate(preset, models=models, device="cpu", settings=settings) as gate:
        log, sink = MemoryLog(min(SAMPLE_S, seconds / len(files) / 10)), Counter()
        began, began_wall = cpu_seconds(), time.monotonic()
        results = gate.process([partial(open_source, file) for file in files], sink, jobs=len(files), progress=log)
        cpu, wall = cpu_seconds() - began, time.monotonic() - began_wall
        for result in results:
            if result.status != "done":
                raise ValueError(result.error or result.status)
    return {
        "seconds": sum(result.duration_seconds for result in results),
        "frames": sum(result.frames for result in results),
        "cpu": cpu,
        "decode_cpu": decode_cpu,
        "wall": wall,
        "peak_mib": peak_mib(),
        "tracks": sink.tracks,
        "kept": sink.kept,
        "memory": log.samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--preset", default="studio")
    parser.add_argument("--models", default=DEFAULT_MODELS)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    given = parser.parse_args()
    print(json.dumps(measure(given.files, given.preset, given.models, given.settings)))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
