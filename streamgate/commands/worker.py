"""The worker process of `streamgate run`, which reads the sources and runs the networks."""

from __future__ import annotations

import os
import pickle
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import av

from streamgate.commands.messages import InputsFound, RunRequest, RunState, WorkerEnded
from streamgate.commands.monitor import RunMonitor
from streamgate.config import Config, load_config
from streamgate.engine import Engine
from streamgate.errors import DeliveryError, SourceError, StreamgateError, UsageError, unexpected
from streamgate.measures.vocabulary import reason_words
from streamgate.runtime.jobs import automatic_jobs, decoder_threads
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
from streamgate.sources.remote import AnyPath
from streamgate.store.lock import Lock
from streamgate.store.run import RunInfo, SourceInfo, SourceResult

if TYPE_CHECKING:  # Ray is an optional dependency
    from streamgate.ray.cluster import Cluster


def run_worker(request: RunRequest, state: RunState, channel: Channel) -> None:
    """Do the work that remains according to `state`, reporting to the parent over `channel`. Never raises."""
    try:
        _WorkerRun(request, state, channel).run()
    except StreamgateError as error:
        channel.send(WorkerEnded(error))
    except Exception as error:
        if os.environ.get("STREAMGATE_DEBUG"):
            traceback.print_exc()
        channel.send(WorkerEnded(unexpected(error, *request.inputs, *request.sinks)))


class _WorkerRun:
    """One worker's part of a run. It also receives progress reports from a cluster (`streamgate.ray.cluster.Report`).

    A cluster never reports that a source is being opened: the cluster's readers open the sources, so a source cannot be
    the cause if this process dies.
    """

    def __init__(self, request: RunRequest, state: RunState, channel: Channel) -> None:
        self._request = request
        self._state = state
        self._channel = channel
        self._stop = channel.stop
        self._noted: set[str] = set()

    def run(self) -> None:
        if self._request.log_level == "debug":
            # Enables FFmpeg's own messages about damaged files, which FFmpeg writes to standard error.
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
        with self._engine(config) as engine:
            if isinstance(engine, Engine):
                check_decoder(self._decoder(engine))
            self._report_gate(engine)
            info = engine.run_info()
            disk = self._disk(info, config)
            with SinkGroup(self._sinks(disk, info)) as sink:
                if self._state.lock is None:
                    if self._request.shard is not None:
                        write_part(self._request.out, self._request.shard, info)
                    words = reason_words(config.measures.specs)
                    locked = partial(RunMonitor.locked, info=info, config=config.model_dump(mode="json"), words=words)
                    self._channel.send(locked, disk.lock.fileno())
                self._skip_done(disk, specs)
                if isinstance(engine, Engine):
                    self._read(engine, sink, specs)
                else:
                    self._read_on_cluster(engine, disk, specs)
                missing = self._finish(sink, disk)
        self._channel.send(WorkerEnded(None, self._stop.is_set(), missing))

    def _engine(self, config: Config) -> Engine | Cluster:
        """Open what reads the sources: networks in this process, or readers on a Ray cluster."""
        request = self._request
        if request.ray is None:
            return Engine(config, models=request.models, device=request.device)
        from streamgate.ray.cluster import Cluster, options_for

        debug = request.log_level == "debug"
        options = options_for(
            config.model_dump(mode="json"), request.models, request.device, request.decode, debug=debug
        )
        return Cluster(request.ray, request.out, options, request.jobs or 1, self, self._stop, quiet=not debug)

    def _read_on_cluster(self, cluster: Cluster, disk: DiskSink, specs: Sequence[SourceSpec]) -> None:
        from streamgate.ray.cluster import absolute

        cluster.clean()
        left = {index: absolute(spec) for index, spec in enumerate(specs) if index not in self._state.results}
        cluster.read(left, [index for index in left if index in self._state.last], disk)
        self._report_notes(cluster)
        self._report_fallen(self._request.decode)

    def _config(self) -> Config:
        if self._state.config is not None:
            return Config.model_validate(self._state.config)
        config = load_config(self._request.preset, self._request.settings, self._request.flags)
        if self._request.flags.get("output.quality") is not None and config.output.format == "png":
            raise UsageError("--quality is for JPEG and WebP, not for PNG: add --format jpeg or --format webp")
        return config

    def _find(self) -> list[SourceSpec]:
        """Find the sources; every worker of a run gets the same list."""
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

    def _is_video(self, path: AnyPath) -> bool:
        if str(path) in self._state.failed_probes:
            return False
        self._channel.send(partial(RunMonitor.probing, path=str(path)))
        return is_video(path)

    def _report_gate(self, engine: Engine | Cluster) -> None:
        if self._state.info is not None:
            self._noted.update(engine.notes)
            return  # an earlier worker has already reported notes and weights
        self._report_notes(engine)
        for one in engine.run_info().weights:
            self._channel.send(
                partial(RunMonitor.debug, text=f"weights: {one['role']} {one['name']}, sha256 {one['sha256'][:16]}")
            )
        if absent := engine.run_info().absent_measures:
            names = ", ".join(f"{name} ({why})" for name, why in absent.items())
            self.note(f"measures left out: {names}")

    def _report_notes(self, engine: Engine | Cluster) -> None:
        """Report notes that are new: on a GPU, networks may have switched to a slower mode during the run."""
        for note in engine.notes:
            if note not in self._noted:
                self._noted.add(note)
                self.note(note)

    def _decoder(self, engine: Engine) -> str:
        # The pixels of CPU and GPU decoders differ in the last bits. "auto" means the CPU, so that results are the same
        # on every machine.
        return decoder_name(engine.device.index) if self._request.decode == "cuda" else CPU

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
            # An earlier process may have died after it committed a source and before it sent the source's events.
            resumed=self._request.resume or self._state.begun,
            probe=not self._state.begun,
            stopping=self._stop,
            warn=self.warn,
        )

    def _skip_done(self, disk: DiskSink, specs: Sequence[SourceSpec]) -> None:
        """Take over results that were committed by an earlier run, or by a worker that died afterwards."""
        state = self._state
        for index in sorted(state.committed):
            if (result := disk.done(state.ids[index])) is not None:
                self.finished(index, result)
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

    def _read(self, engine: Engine, sink: Sink, specs: Sequence[SourceSpec]) -> None:
        """Read the sources that have no result yet; those that may have crashed a worker are read last, one by one."""
        left = [index for index in range(len(specs)) if index not in self._state.results]
        together = [index for index in left if index not in self._state.last]
        alone = [index for index in left if index in self._state.last]
        decode = self._decoder(engine)
        decoding = engine.config.decoding
        opened = partial(
            SourceSpec.open, decode=decode, max_pixels=decoding.max_pixels,
            time_range=TimeRange(decoding.start_s, decoding.end_s),
        )  # fmt: skip
        wanted = self._request.jobs or automatic_jobs(len(together), on_gpu=engine.on_gpu)
        for indexes, jobs in ((together, min(wanted, len(together))), (alone, 1)):
            threads = decoder_threads(jobs)
            done = engine.run(
                [partial(opened, specs[index], threads) for index in indexes],
                sink,
                jobs=jobs,
                stop=self._stop,
                progress=_Reporter(self._channel, indexes),
                labels=[specs[index].location for index in indexes],
            )
            self._state.results.update(zip(indexes, done, strict=True))
        self._report_notes(engine)
        self._report_fallen(decode)

    def _report_fallen(self, decode: str) -> None:
        results = self._state.results.values()
        fallen = sum(any(note.startswith(NOT_ON_GPU) for note in result.notes) for result in results)
        if decode not in (CPU, "auto") and fallen:
            self.warn(f"{fallen} source(s) were decoded on the CPU instead of the GPU: see `notes` in summary.json")

    def _finish(self, sink: Sink, disk: DiskSink) -> str | None:
        """Write the run-wide files; returns a message about undelivered events, if any."""
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
                self.warn(_apart(disk.unknown_persons))
        return None

    def started(self, index: int, source: SourceInfo, estimated_frames: int | None) -> None:
        self._channel.send(
            partial(RunMonitor.started, index=index, source=source, estimated_frames=estimated_frames)
        )

    def advanced(self, index: int, frames: int, kept: int) -> None:
        self._channel.send(partial(RunMonitor.advanced, index=index, frames=frames, kept=kept))

    def finished(self, index: int, result: SourceResult) -> None:
        self._state.results[index] = result
        self._channel.send(partial(RunMonitor.finished, index=index, result=result))

    def note(self, text: str) -> None:
        self._channel.send(partial(RunMonitor.note, text=text))

    def warn(self, text: str) -> None:
        self._channel.send(partial(RunMonitor.warn, text=text))


class _Reporter(Progress):
    """Reports the progress of sources to the parent; `indexes` are the sources' indexes in the run."""

    def __init__(self, channel: Channel, indexes: Sequence[int]) -> None:
        self._channel = channel
        self._indexes = indexes
        self._here = threading.local()

    def opening(self, index: int) -> None:
        self._here.index = self._indexes[index]
        # Reported before the source is opened, because opening it may crash this process.
        self._channel.send(partial(RunMonitor.opening, index=self._here.index))

    def started(self, source: Source) -> None:
        info = SourceInfo(source.location, source.source_id)
        self._channel.send(
            partial(
                RunMonitor.started, index=self._here.index, source=info, estimated_frames=source.estimated_frames
            )
        )

    def advanced(self, source: Source, frames: int, pts_seconds: float, kept: int) -> None:
        self._channel.send(partial(RunMonitor.advanced, index=self._here.index, frames=frames, kept=kept))

    def finished(self, result: SourceResult) -> None:
        if result.status != "not_started":
            self._channel.send(partial(RunMonitor.finished, index=self._here.index, result=result))


def _size(spec: SourceSpec) -> int:
    """Size of the source's files in bytes, at least 1; used to estimate the source's share of the run."""
    try:
        return 1 + sum(path.stat().st_size for path in spec.paths)
    except OSError:
        return 1


def _apart(persons: int) -> str:
    return (
        f"the embeddings of {persons} earlier person(s) were removed at the end of their run (identity.store = "
        "session), so new tracks could not be matched with these persons; to merge persons, use `streamgate people OUT "
        "merge`; to keep embeddings in later runs, add --set identity.store=disk"
    )


def _ids(specs: Sequence[SourceSpec], wanted: frozenset[str]) -> dict[int, str]:
    """The ids of the sources whose id is in `wanted`, by index in `specs`; unreadable sources are left out."""

    names = {source_id.rpartition("-")[0] for source_id in wanted}

    def look(spec: SourceSpec) -> str | None:
        # Reading a pipe could wait forever.
        if spec.name not in names or (spec.root is None and not spec.paths[0].is_file()):
            return None
        try:
            return within(stall_seconds() + MARGIN_S, spec.source_id, spec.location)
        except (OSError, SourceError):
            return None  # the error is reported when the source is read

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="streamgate-look") as pool:
        found = list(pool.map(look, specs)) if wanted else []
    return {index: source_id for index, source_id in enumerate(found) if source_id in wanted}
