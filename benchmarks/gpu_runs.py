"""Whole runs on a GPU: many files at once through one set of networks, for a few seconds each."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from common import say, usable_cores
from gpu_card import Load

from streamgate.config import load_config
from streamgate.engine import Engine
from streamgate.errors import StreamgateError, one_line
from streamgate.gate import Gate
from streamgate.networks.device import Device
from streamgate.sources import open_source
from streamgate.sources.file import VideoFile
from streamgate.sources.hardware import CPU, decoder_name
from streamgate.store.run import SourceInfo, SourceResult
from streamgate.tracks import Candidate, TrackEnd

JOBS = (1, 4, 16)
RUN_S = 10.0
BUSY = 0.85
"""From which share of its time on something counts as the limit."""
_COPIES = 200
"""Of the clip for each file at once: more than are read within `RUN_S`."""


class Clock:
    """What is left of the time."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self.left_out: list[str] = []

    @property
    def left(self) -> float:
        return self._until - time.monotonic()

    def part(self, share: float) -> Clock:
        """A clock for a share of what is left; what it leaves out is left out here too."""
        clock = Clock(share * self.left)
        clock.left_out = self.left_out
        return clock

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Note what fails in the block, and go on: a card is rarely at hand."""
        try:
            yield
        except Exception as error:
            say(f"{what}: {error}")
            self.left_out.append(f"{what} (failed: {one_line(str(error), 200)})")

    def allows(self, what: str, seconds: float) -> bool:
        if self.left >= seconds:
            return True
        self.left_out.append(what)
        return False


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: seconds of video and frames a second of wall; shares of time; memory in GiB."""

    networks: str
    jobs: int
    decode: str
    video: float
    frames: float
    cpu: float
    load: Load
    memory_gib: float
    error: str = ""

    @property
    def limit(self) -> str:
        """What was at its limit; waiting for one another where nothing was."""
        shares = {"CPU": self.cpu, "GPU": _mean(self.load.gpu), "GPU decoder": _mean(self.load.decoder)}
        busiest = max(shares, key=lambda name: shares[name])
        return busiest if shares[busiest] >= BUSY else "none: they wait for one another"

    def row(self) -> list[str]:
        """Its cells in the table."""
        named = [self.networks, str(self.jobs), self.decode]
        if self.error:
            return [*named, self.error, *[""] * 7]
        card = [_percent(self.load.gpu), _percent(self.load.decoder), f"{self.load.memory_gib:.1f}"]
        if self.load.index is None:
            card = ["", "", ""]
        return [
            *named, f"{self.video:.1f}", f"{self.frames:,.0f}", self.limit, f"{self.cpu:.0%}", *card,
            f"{self.memory_gib:.1f}",
        ]  # fmt: skip


def runs(clip: Path, models: str, large: str | None, device: Device, clock: Clock) -> Iterator[Ran]:
    """Every run that there is time for, the most telling ones first."""
    decoders = [CPU, *([decoder_name(device.index)] if device.index is not None else [])]
    kinds: list[tuple[str, str, list[str]]] = [("embedded", models, [])]
    if large is not None:
        half = ["precision.ifqa=fp16", "precision.recognizer=fp16"]
        kinds.append(("large, fp16", large, half))
        kinds.append(("large, fp16, exhaustive", large, [*half, "exhaustive=true"]))
    kinds.append(("embedded, exhaustive", models, ["exhaustive=true"]))
    for name, found, settings in kinds:
        at_once = JOBS[-1:] if "exhaustive=true" in settings else JOBS
        if not clock.allows(f"runs: {name}", RUN_S + 10):
            continue
        with (
            clock.attempt(f"runs: {name}"),
            Engine(load_config(settings=["identity.store=none", *settings]), models=found, device=device) as engine,
        ):
            for jobs in reversed(at_once):
                for decode in reversed(decoders):
                    what = f"{name}, {jobs} at once, decoded on {decode}"
                    if clock.allows(what, RUN_S + 3):
                        with clock.attempt(what):
                            yield _run(engine, name, clip, jobs, decode)
            for note in engine.notes:
                say(f"{name}: {note}")


def _run(engine: Engine, name: str, clip: Path, jobs: int, decode: str) -> Ran:
    stop = threading.Event()
    timer = threading.Timer(RUN_S, stop.set)
    opening = partial(VideoFile, clip, decode=decode, threads=max(1, usable_cores() // jobs))
    began, before = time.perf_counter(), _cpu_seconds()
    timer.start()
    error = ""
    results: list[SourceResult] = []
    with Load(engine.device.index) as load:
        try:
            results = engine.run([opening] * (jobs * _COPIES), _Nowhere(), jobs=jobs, stop=stop)
        except StreamgateError as failed:
            error = str(failed)
        finally:
            timer.cancel()
    wall = time.perf_counter() - began
    error = error or next((one.error for one in results if one.error), "") or ""
    video = sum(one.duration_seconds or 0.0 for one in results if one.frames)
    frames = sum(one.frames for one in results)
    cpu = (_cpu_seconds() - before) / wall / usable_cores()
    say(f"{name}, {jobs} at once, decoded on {decode}: {video / wall:.1f} s of video a second {error}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Ran(name, jobs, decode, video / wall, frames / wall, cpu, load, memory, error)


def picks_of(clip: Path, models: str, device: Device) -> bool:
    """Whether the GPU keeps the faces that the CPU keeps."""
    kept = []
    for where in (device, "cpu"):
        with Gate(models=models, device=where) as gate, open_source(clip):
            kept.append([(shot.track.track_id, shot.pts_seconds) for shot in gate.run(clip)])
    return kept[0] == kept[1]


class _Nowhere:
    """A sink and its writers that keep nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def open_source(self, source: SourceInfo) -> Self:
        return self

    def evaluated(self, candidate: Candidate) -> None:
        pass

    def track(self, ended: TrackEnd) -> None:
        pass

    def commit(self, result: SourceResult) -> None:
        pass

    def discard(self) -> None:
        pass

    def finish(self, results: list[SourceResult], timing: Mapping[str, float]) -> None:
        pass


def _cpu_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _percent(values: list[float]) -> str:
    return f"{_mean(values):.0%}" if values else ""
