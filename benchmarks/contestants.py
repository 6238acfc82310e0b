"""What `throughput.py` compares. Each contestant runs in a process of its own, which is this file:

    python benchmarks/contestants.py NAME CLIP [--models embedded]

It prints one JSON object, a `Measured`. A new contestant is a function (models) -> (clip -> Outcome) in
`CONTESTANTS`; whatever it imports and loads before it returns counts as start-up.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from common import STARTED

from streamgate.defaults import DEFAULT_MODELS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one pass over a clip gave. `video_seconds` is 0 where the contestant does not look at time."""

    frames: int = 0
    video_seconds: float = 0.0
    height: int = 0
    width: int = 0
    tracks: int = 0
    kept: int = 0
    faces: int = 0
    """Faces scored, where a contestant scores each it finds."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One pass with its cost: seconds of wall and of CPU (user + system, all threads), peak memory in MiB."""

    outcome: Outcome
    startup_wall: float
    startup_cpu: float
    wall: float
    cpu: float
    peak_mib: float


Run = Callable[[Path], Outcome]


def open_decoder(models: str, limit: float = 0.0) -> Run:
    """Decoding alone: PyAV with automatic threads, every frame dropped."""
    import av

    def run(clip: Path) -> Outcome:
        frames, end = 0, 0.0
        with av.open(str(clip)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                frames += 1
                if frame.pts is not None and frame.time_base is not None:
                    end = max(end, float((frame.pts + (frame.duration or 0)) * frame.time_base))
            start = float((stream.start_time or 0) * stream.time_base)
            return Outcome(frames, end - start, stream.height, stream.width)

    return run


def open_gate(models: str, limit: float = 0.0) -> Run:
    """This pipeline with its defaults, through `Gate`."""
    return _gate(models, "studio", [])


def open_exhaustive(models: str, limit: float = 0.0) -> Run:
    """This pipeline scoring every face of every frame."""
    return _gate(models, "studio", ["exhaustive=true"])


def open_archive(models: str, limit: float = 0.0) -> Run:
    """This pipeline with the preset that leaves frames undecoded."""
    return _gate(models, "archive", [])


def open_plain(models: str, limit: float = 0.0) -> Run:
    """The loop a user would write, with our own networks."""
    return _plain(models, limit, official=False)


def open_plain_official(models: str, limit: float = 0.0) -> Run:
    """The loop a user would write, with IFQA's official architecture."""
    return _plain(models, limit, official=True)


def _gate(models: str, preset: str, settings: list[str]) -> Run:
    from streamgate import Gate

    # The process ends with the run, so the gate is never closed.
    gate = Gate(preset, models=models, device="cpu", settings=settings)

    def run(clip: Path) -> Outcome:
        tracks = kept = 0
        for ended in gate.tracks(clip):
            tracks += 1
            kept += len(ended.shots)
        return Outcome(tracks=tracks, kept=kept)

    return run


def _plain(models: str, limit: float, *, official: bool) -> Run:
    from plainloop import open_loop

    loop = open_loop(models, official)

    def run(clip: Path) -> Outcome:
        frames, seconds, height, width, faces = loop(clip, limit or float("inf"))
        return Outcome(frames, seconds, height, width, faces=faces)

    return run


CONTESTANTS: dict[str, Callable[[str, float], Run]] = {
    "decode": open_decoder,
    "streamgate": open_gate,
    "archive": open_archive,
    "exhaustive": open_exhaustive,
    "plain": open_plain,
    "plain_official": open_plain_official,
}


def describe(models: str) -> dict[str, object]:
    """Versions and weights that a gate here runs with."""
    from streamgate.config import load_config
    from streamgate.engine import Engine

    with Engine(load_config("studio"), models=models, device="cpu") as engine:
        info = engine.run_info()
        return {"versions": dict(info.versions), "weights": [dict(one) for one in info.weights]}


def measure(name: str, clip: Path, models: str, limit: float = 0.0) -> Measured:
    """Open a contestant, run it once over the clip and say what each part cost."""
    began = float(os.environ.get(STARTED) or time.monotonic())
    run = CONTESTANTS[name](models, limit)
    ready, ready_cpu = time.monotonic(), cpu_seconds()
    outcome = run(clip)
    done, done_cpu = time.monotonic(), cpu_seconds()
    return Measured(outcome, ready - began, ready_cpu, done - ready, done_cpu - ready_cpu, peak_mib())


def cpu_seconds() -> float:
    """User and system time of this process so far, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mib() -> float:
    """The most memory this process has held."""
    # On Linux ru_maxrss starts at what the parent held when it forked; VmHWM is this program's own.
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=[*CONTESTANTS, "describe"])
    parser.add_argument("clip", type=Path, nargs="?")
    parser.add_argument("--models", default=DEFAULT_MODELS)
    parser.add_argument("--limit", type=float, default=0.0, help="seconds of video for the plain loops, 0: all")
    given = parser.parse_args()
    if given.name == "describe":
        result: object = describe(given.models)
    elif given.clip is None:
        parser.error(f"{given.name} needs a CLIP")
    else:
        result = asdict(measure(given.name, given.clip, given.models, given.limit))
    print(json.dumps(result))
    sys.stdout.flush()
    # Nothing that is left open may delay or fail a finished measurement.
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
