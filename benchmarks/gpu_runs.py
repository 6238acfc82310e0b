"""Runs of the whole pipeline on a GPU: several files at once with one set of networks, for a few seconds each."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from common import say
from gpu_card import Busy, Card, Load
from gpu_networks import ready
from gpu_parts import Clock

from streamgate.config import load_config
from streamgate.engine import Engine
from streamgate.errors import StreamgateError
from streamgate.gate import Gate
from streamgate.networks.device import Device
from streamgate.parallel import usable_cores
from streamgate.runtime.pipeline import Progress
from streamgate.sources.base import Source
from streamgate.sources.file import VideoFile
from streamgate.sources.hardware import CPU, check_decoder, decoder_name
from streamgate.store.run import SourceInfo, SourceResult
from streamgate.tracks import Candidate, TrackEnd

JOBS = (1, 4, 16)
RUN_S, RUN_CPU_S = 8.0, 4.0
"""Duration of each run in seconds: on a GPU, and without one, to test the script."""
PATIENCE = 4
"""A run in which no frame has arrived may take this many times its duration."""
BUSY = 0.85
"""Utilisation above which something counts as the bottleneck."""
_COPIES = 200
"""Number of copies of the clip for each of the files that are read at once; more than can be read within `RUN_S`."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: seconds of video and frames per second of wall time, utilisation of the CPU (0..1), memory in GiB.

    `error` describes a failure, or a fallback such as decoding on the CPU.
    """

    networks: str
    jobs: int
    decode: str
    video: float
    frames: float
    cpu: float
    busy: Busy | None
    memory_gib: float
    error: str = ""

    @property
    def limit(self) -> str:
        """The bottleneck: the busiest resource, or none if no resource was at its limit."""
        shares = {"CPU": self.cpu}
        if self.busy is not None:
            shares |= {"GPU": self.busy.gpu, "GPU decoder": self.busy.decoder}
        busiest = max(shares, key=lambda name: shares[name])
        return busiest if shares[busiest] >= BUSY else "none (each waits for the others)"

    def row(self) -> list[str]:
        """The cells of the run's row in the table."""
        named = [self.networks, str(self.jobs), self.decode]
        if not self.frames:
            return [*named, "", "", self.error, *[""] * 5]
        card = ["", "", ""]
        if self.busy is not None:
            card = [_percent(self.busy.gpu), _percent(self.busy.decoder), f"{self.busy.memory_gib:.1f}"]
        limit = f"{self.limit} ({self.error})" if self.error else self.limit
        return [
            *named, f"{self.video:.1f}", f"{self.frames:,.0f}", limit, f"{self.cpu:.0%}", *card,
            f"{self.memory_gib:.1f}",
        ]  # fmt: skip


def runs(
    name: str, models: str, settings: Sequence[str], jobs: Sequence[int], clip: Path, device: Device, card: Card,
    clock: Clock,
) -> Iterator[Ran]:  # fmt: skip
    """All runs with these networks for which there is time, those with the most files first."""
    ready(device)
    seconds = RUN_CPU_S if device.index is None else RUN_S
    decoders = [CPU] if device.index is None else [decoder_name(device.index), CPU]
    config = load_config(settings=["identity.store=none", *settings])
    with Engine(config, models=models, device=device) as engine:
        for at_once in sorted(jobs, reverse=True):
            for decode in decoders:
                what = f"{name}, {at_once} at once, decoded on {decode}"
                if clock.allows(what, seconds + 2):
                    try:
                        check_decoder(decode)
                        ran = _run(engine, name, clip, at_once, decode, seconds, card)
                    except Exception as error:
                        clock.failed(what, error)
                        continue
                    say(f"{what}: {ran.error or f'{ran.video:.1f} s of video per second, bottleneck: {ran.limit}'}")
                    yield ran
        for note in engine.notes:
            say(f"{name}: {note}")


def _run(engine: Engine, name: str, clip: Path, jobs: int, decode: str, seconds: float, card: Card) -> Ran:
    opening = partial(VideoFile, clip, decode=decode, threads=max(1, usable_cores() // jobs))
    error = ""
    results: list[SourceResult] = []
    stop = _Stop(seconds)
    before = _cpu_seconds()
    with Load(card.address) as load, stop:
        try:
            results = engine.run([opening] * (jobs * _COPIES), _Nowhere(), jobs=jobs, stop=stop.event, progress=stop)
        except StreamgateError as failed:
            error = str(failed)
    wall = time.perf_counter() - stop.began
    error = error or next((one.error for one in results if one.error), "") or ""
    fallen = {one for result in results for one in result.notes}
    video = sum(one.duration_seconds or 0.0 for one in results if one.frames)
    frames = sum(one.frames for one in results)
    if not frames and not error:
        error = f"no frame within {wall:.0f} s"
    elif fallen and not error:
        error = "; ".join(sorted(fallen))
    cpu = (_cpu_seconds() - before) / wall / usable_cores()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Ran(name, jobs, decode, video / wall, frames / wall, cpu, load.busy(), memory, error)


class _Stop(Progress):
    """Sets `event` after the given time, or later if no frame has arrived: such a run would have no result."""

    def __init__(self, seconds: float) -> None:
        self.event = threading.Event()
        self.began = time.perf_counter()
        self._seconds = seconds
        self._frames = self._over = False
        self._thread = threading.Thread(target=self._wait, daemon=True)

    def advanced(self, source: Source, frames: int, pts_seconds: float, kept: int) -> None:
        self._frames = self._frames or frames > 0

    def _wait(self) -> None:
        until = self.began + self._seconds
        while not self._over:
            now = time.perf_counter()
            if now >= until and (self._frames or now >= until + (PATIENCE - 1) * self._seconds):
                break
            time.sleep(0.05)
        self.event.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join()


def picks(clip: Path, models: str, device: Device, clock: Clock) -> Iterator[bool]:
    """Run the clip on the GPU and on the CPU; yields whether both keep the same faces."""
    ready(device)
    kept = []
    for where in (device, "cpu"):
        with Gate(models=models, device=where) as gate:
            kept.append([(shot.track.track_id, shot.pts_seconds) for shot in gate.run(clip)])
    yield kept[0] == kept[1]


class _Nowhere:
    """A sink that keeps nothing; it is also its own writer."""

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


def _percent(share: float) -> str:
    return f"{share:.0%}"
