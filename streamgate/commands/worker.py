"""The worker process of `streamgate run`: everything that touches footage and networks."""

from __future__ import annotations

import os
import pickle
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import av

from streamgate.commands.messages import InputsFound, RunRequest, RunState, WorkerEnded
from streamgate.commands.monitor import RunMonitor
from streamgate.config import Config, load_config
from streamgate.errors import DeliveryError, SourceError, StreamgateError, UsageError, unexpected
from streamgate.gate import Gate
from streamgate.measures.vocabulary import reason_words
from streamgate.runtime.pipeline import NOT_ON_GPU, Progress
from streamgate.runtime.processes import Channel
from streamgate.runtime.watchdog import MARGIN_S, within
from streamgate.sinks import Sink, SinkGroup, open_sink
from streamgate.sinks.disk import DiskSink
from streamgate.sinks.merging import write_part
from streamgate.sources import Source, SourceSpec, discover
from streamgate.sources.base import TimeRange
from streamgate.sources.container import stall_seconds
from streamgate.sources.discovery import is_video
from streamgate.sources.hardware import CPU, check_decoder, decoder_name
from streamgate.store.lock import Lock
from streamgate.store.run import RunInfo, SourceInfo, SourceResult

_REPORT_S = 0.1
"""So often a source's progress is reported."""


def run_worker(request: RunRequest, state: RunState, channel: Channel) -> None:
    """Do what `state` leaves to be done, reporting to the parent over `line`. Never raises."""
    try:
        _WorkerRun(request, state, channel).run()
    except StreamgateError as error:
        channel.send(WorkerEnded(error))
    except Exception as error:
        if os.environ.get("STREAMGATE_DEBUG"):
            traceback.print_exc()
        channel.send(WorkerEnded(unexpected(error, *request.inputs, *request.sinks)))


class _WorkerRun:
    def __init__(self, request: RunRequest, state: RunState, channel: Channel) -> None:
        self._request = request
        self._state = state
        self._channel = channel
        self._stop = channel.stop
        self._noted: set[str] = set()

    def run(self) -> None:
        if self._request.log_level == "debug":
            # FFmpeg's own words about damaged files: it writes them to standard error itself.
            av.logging.set_level(av.logging.WARNING)
            av.logging.restore_default_callback()
            os.environ["STREAMGATE_DEBUG"] = "1"
        config = self._config()
        specs = self._find()
        assert self._state.found is not None
        if not specs and not self._state.found.elsewhere:
            return
        unread = [index for index in range(len(specs)) if index not in self._state.results]
        if self._state.info is not None and (self._state.closing or not unread):
            # Nothing is left to read, so no networks are needed.
            disk = self._disk(self._state.info, config)
            with SinkGroup(self._sinks(disk, self._state.info)) as sink:
                missing = self._finish(sink, disk)
            self._channel.send(WorkerEnded(None, self._stop.is_set(), missing))
            return
        with Gate(models=self._request.models, device=self._request.device, config=config) as gate:
            check_decoder(self._decoder(gate))
            self._report_gate(gate)
            info = gate.run_info()
            disk = self._disk(info, config)
            with SinkGroup(self._sinks(disk, info)) as sink:
                if self._state.lock is None:
                    if self._request.shard is not None:
                        write_part(self._request.out, self._request.shard, info)
                    words = reason_words(config.measures.specs)
                    locked = partial(RunMonitor.locked, info=info, config=config.model_dump(mode="json"), words=words)
                    self._channel.send(locked, disk.lock.fileno())
                self._skip_done(disk, specs)
                self._read(gate, sink, specs)
                missing = self._finish(sink, disk)
        self._channel.send(WorkerEnded(None, self._stop.is_set(), missing))

    def _config(self) -> Config:
        if self._state.config is not None:
            return Config.model_validate(self._state.config)
        config = load_config(self._request.preset, self._request.settings, self._request.flags)
        if self._request.flags.get("output.quality") is not None and config.output.format == "png":
            raise UsageError("--quality is of JPEG and WebP, and PNG has none: add --format jpeg or --format webp")
        return config

    def _find(self) -> list[SourceSpec]:
        """The sources there are, the same for every worker of a run."""
        if self._state.found is not None:
            return list(pickle.loads(self._state.found.specs))
        request = self._request
        shard = request.shard
        output = request.out if shard is None else request.out.parent.parent
        found = discover(request.inputs, sequence_fps=request.sequence_fps, output=output, probe=self._is_video)
        elsewhere = 0 if shard is None else shard.share(found)
        self._state.found = InputsFound(
            labels=tuple(spec.location for spec in found.sources),
            specs=pickle.dumps(found.sources),
            errors=tuple(found.errors),
            warnings=tuple(found.warnings),
            duplicates=tuple(found.duplicates),
            skipped=found.skipped_words(),
            sizes=tuple(_size(spec) for spec in found.sources),
            elsewhere=elsewhere,
        )
        self._channel.send(partial(RunMonitor.found, found=self._state.found))
        return found.sources

    def _is_video(self, path: Path) -> bool:
        if str(path) in self._state.failed_probes:
            return False
        self._channel.send(partial(RunMonitor.probing, path=str(path)))
        return is_video(path)

    def _report_gate(self, gate: Gate) -> None:
        if self._state.info is not None:
            self._noted.update(gate.notes)
            return  # the worker before this one has
        self._report_notes(gate)
        for one in gate.run_info().weights:
            self._channel.send(
                partial(RunMonitor.debug, text=f"weights: {one['role']} {one['name']}, sha256 {one['sha256'][:16]}")
            )
        if absent := gate.run_info().absent_measures:
            names = ", ".join(f"{name} ({why})" for name, why in absent.items())
            self._channel.send(partial(RunMonitor.note, text=f"measures left out: {names}"))

    def _report_notes(self, gate: Gate) -> None:
        """Those that are new: a GPU may have had to be run otherwise on the way."""
        for note in gate.notes:
            if note not in self._noted:
                self._noted.add(note)
                self._channel.send(partial(RunMonitor.note, text=note))

    def _decoder(self, gate: Gate) -> str:
        # Both decode alike, but not to the bit: "auto" stays where results are the same on every machine.
        return decoder_name(gate.device.index) if self._request.decode == "cuda" else CPU

    def _disk(self, info: RunInfo, config: Config) -> DiskSink:
        request, state = self._request, self._state
        return DiskSink(
            request.out,
            info,
            overwrite=request.overwrite and not state.begun,
            resume=request.resume or state.begun,
            candidates=config.output.candidates,
            report=config.output.report,
            part=request.shard is not None,
            lock=state.lock or Lock(request.out, holder=os.getppid()),
            begun=lambda: self._channel.send(RunMonitor.begun),
        )

    def _sinks(self, disk: DiskSink, info: RunInfo) -> list[Sink]:
        return [disk, *(self._sink(url, info) for url in self._request.sinks)]

    def _sink(self, url: str, info: RunInfo) -> Sink:
        return open_sink(
            url,
            info,
            retry_seconds=self._request.sink_retry,
            results=self._request.out,
            # A process before this one may have committed what it did not live to send.
            resumed=self._request.resume or self._state.begun,
            probe=not self._state.begun,
            stopping=self._stop,
            warn=self._warn,
        )

    def _skip_done(self, disk: DiskSink, specs: Sequence[SourceSpec]) -> None:
        """Take the results of what is committed already, by an earlier run or by a worker that died right after."""
        state = self._state
        for index in sorted(state.committed):
            if (result := disk.done(state.ids[index])) is not None:
                self._finished(index, result)
        if state.lock is not None or not self._request.resume:
            return
        ids = _ids(specs, disk.known_ids() | disk.unfinished)
        done: dict[int, SourceResult] = {}
        seen: set[str] = set()
        for index, source_id in ids.items():
            if source_id not in seen and (result := disk.done(source_id)) is not None:
                done[index] = result
            seen.add(source_id)
        unfinished = {index for index, source_id in ids.items() if source_id in disk.unfinished} - done.keys()
        state.results.update(done)
        state.last |= unfinished
        self._channel.send(partial(RunMonitor.known, done=done, unfinished=frozenset(unfinished)))

    def _finished(self, index: int, result: SourceResult) -> None:
        self._state.results[index] = result
        self._channel.send(partial(RunMonitor.finished, index=index, result=result))

    def _read(self, gate: Gate, sink: Sink, specs: Sequence[SourceSpec]) -> None:
        """Run what has no result yet: first what has never been seen to do harm, then the rest, one by one."""
        left = [index for index in range(len(specs)) if index not in self._state.results]
        together = [index for index in left if index not in self._state.last]
        alone = [index for index in left if index in self._state.last]
        decode = self._decoder(gate)
        decoding = gate.config.decoding
        opened = partial(
            SourceSpec.open, decode=decode, max_pixels=decoding.max_pixels,
            time_range=TimeRange(decoding.start_s, decoding.end_s),
        )  # fmt: skip
        for indexes, jobs in ((together, self._request.jobs), (alone, 1)):
            done = gate.process(
                [partial(opened, specs[index]) for index in indexes],
                sink,
                jobs=jobs,
                stop=self._stop,
                progress=_Reporter(self._channel, indexes),
                labels=[specs[index].location for index in indexes],
            )
            self._state.results.update(zip(indexes, done, strict=True))
        self._report_notes(gate)
        results = self._state.results.values()
        fallen = sum(any(note.startswith(NOT_ON_GPU) for note in result.notes) for result in results)
        if decode != CPU and fallen:
            self._warn(f"{fallen} source(s) were decoded on the CPU, not on the GPU: see `notes` in summary.json")

    def _finish(self, sink: Sink, disk: DiskSink) -> str | None:
        """Write what covers the run; what did not get delivered, if anything."""
        found = self._state.found
        assert found is not None
        self._channel.send(RunMonitor.writing)
        copies = [
            SourceResult(SourceInfo(copy, ""), status="duplicate", error=f"same name and content as {first}")
            for copy, first in found.duplicates
        ]
        timing: Mapping[str, float] = {"seconds": time.perf_counter() - self._state.began}
        try:
            sink.finish([*self._state.all_results(), *copies], timing)
        except DeliveryError as error:
            return str(error)
        finally:
            if disk.unknown_persons:
                self._warn(_apart(disk.unknown_persons))
        return None

    def _warn(self, text: str) -> None:
        self._channel.send(partial(RunMonitor.warn, text=text))


class _Reporter(Progress):
    """Reports to the parent how sources go; `indexes` are theirs in the run."""

    def __init__(self, channel: Channel, indexes: Sequence[int]) -> None:
        self._channel = channel
        self._indexes = indexes
        self._here = threading.local()

    def opening(self, index: int) -> None:
        self._here.index = self._indexes[index]
        self._here.reported = 0.0
        # What may kill this process is reported before it is touched.
        self._channel.send(partial(RunMonitor.opening, index=self._here.index))

    def started(self, source: Source) -> None:
        info = SourceInfo(source.location, source.source_id)
        self._channel.send(
            partial(
                RunMonitor.started, index=self._here.index, source=info, estimated_frames=source.estimated_frames
            )
        )

    def advanced(self, source: Source, frames: int, pts_seconds: float, kept: int) -> None:
        now = time.monotonic()
        if now - self._here.reported >= _REPORT_S:
            self._here.reported = now
            self._channel.send(partial(RunMonitor.advanced, index=self._here.index, frames=frames, kept=kept))

    def finished(self, result: SourceResult) -> None:
        if result.status != "not_started":
            self._channel.send(partial(RunMonitor.finished, index=self._here.index, result=result))


def _size(spec: SourceSpec) -> int:
    """Bytes of its files, at least 1: how much of the run it is likely to be."""
    try:
        return 1 + sum(path.stat().st_size for path in spec.paths)
    except OSError:
        return 1


def _apart(persons: int) -> str:
    return (
        f"the embeddings of {persons} earlier person(s) were removed with the end of their run (identity.store = "
        "session), so new tracks could not join them: `streamgate people OUT merge` does it by hand; with --set "
        "identity.store=disk from the start they find each other"
    )


def _ids(specs: Sequence[SourceSpec], wanted: frozenset[str]) -> dict[int, str]:
    """Source ids by index, of the specs that may have a wanted one; what cannot be read has none."""

    names = {source_id.rpartition("-")[0] for source_id in wanted}

    def look(spec: SourceSpec) -> str | None:
        # Reading a pipe would wait forever.
        if spec.name not in names or (spec.root is None and not spec.paths[0].is_file()):
            return None
        try:
            return within(stall_seconds() + MARGIN_S, spec.source_id, spec.location)
        except (OSError, SourceError):
            return None  # reading it in its turn says why

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="streamgate-look") as pool:
        found = list(pool.map(look, specs)) if wanted else []
    return {index: source_id for index, source_id in enumerate(found) if source_id in wanted}
