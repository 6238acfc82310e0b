"""The driver of `run --ray`: starts readers on a cluster, assigns sources to them and collects their results."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from streamgate.errors import SinkError, StreamgateError, UsageError
from streamgate.ray.connection import cause_of, connect, share_of
from streamgate.ray.reader import PROBE, Finished, Reader, ReaderOptions, SourceProgress
from streamgate.sinks.disk import DiskSink
from streamgate.sources import SourceSpec
from streamgate.store import files
from streamgate.store.layout import STATE_DIR
from streamgate.store.manifest import differences, run_record
from streamgate.store.run import RunInfo, SourceInfo, SourceResult

_SESSION = "ray-"
_DEATHS = 2
"""A source is skipped after its reader has died this many times."""
_LOSSES = 5
"""A lost node counts as the death of a source's reader only after this many nodes have been lost while that source was
being read."""
_FAILED_READERS = 3
"""No more readers are started after this many readers have failed to open."""
_POLL_S = 0.5
_LOOK_S = 2.0
_STOP_S = 60.0
"""Maximum time in seconds that readers may take to commit their results when the run is stopped."""


class Report(Protocol):
    """Receives the progress of a run."""

    def started(self, index: int, source: SourceInfo, estimated_frames: int | None) -> None: ...
    def advanced(self, index: int, frames: int, kept: int) -> None: ...
    def finished(self, index: int, result: SourceResult) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


@dataclass(eq=False, slots=True)
class _Hand:
    """The driver's data about one reader."""

    name: str
    actor: Any
    host: str = ""
    reading: dict[Any, int] = field(default_factory=dict)
    alone: bool = False
    polled: Any = None
    poll_at: float = 0.0
    started: set[int] = field(default_factory=set)


class Cluster:
    """Readers on a Ray cluster. Use it as a context manager.

    Readers are started as long as sources are left and the cluster has room, including on nodes that join later. The
    readers end after the last source.

    Args:
        address: "local", "auto", HOST:PORT or ray://HOST:PORT; "local" starts a cluster on this machine.
        out: the output folder.
        options: options of the readers; this class sets `session`, `token` and `threads`.
        jobs: number of sources that a reader reads at once.
        report: receives the progress.
        stop: set when the run should end.
        quiet: discard the output of Ray itself.

    Raises UsageError if Ray is not installed, DeviceError if the cluster cannot be reached or has no GPU, and SinkError
    if the output folder is not writable.
    """

    def __init__(
        self, address: str, out: Path, options: ReaderOptions, jobs: int, report: Report, stop: threading.Event,
        *, quiet: bool = True,
    ) -> None:  # fmt: skip
        self._address = address
        self._out = out.absolute()
        self._options = options
        self._jobs = jobs
        self._report = report
        self._stop = stop
        self._quiet = quiet
        self._ray: Any = None
        self._session = ""
        self._opening: dict[Any, _Hand] = {}
        self._hands: list[_Hand] = []
        self._made = self._failed = 0
        self._why = ""
        self._look_at = 0.0
        self._fits = 1
        self._cores, self._with_gpu = 1, False
        self._info: RunInfo | None = None
        self._host = ""
        self.notes: list[str] = []
        self._specs: Mapping[int, SourceSpec] = {}
        self._disk: DiskSink | None = None
        self._waiting: deque[int] = deque()
        """Indexes of the sources that are not yet assigned to a reader."""
        self._alone: set[int] = set()
        """Indexes of the sources that a reader must read alone, without another source at the same time."""
        self._deaths: Counter[int] = Counter()
        """How often a reader died while it read a source, by the index of the source."""
        self._losses: Counter[int] = Counter()
        """How often a node was lost while its reader read a source, by the index of the source."""
        self._taken: set[str] = set()

    def run_info(self) -> RunInfo:
        """The run info of the first reader; readers with a different run info are rejected."""
        assert self._info is not None
        return self._info

    def __enter__(self) -> Self:
        try:
            self._ray = connect(self._address, quiet=self._quiet)
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            asked = self._options.device
            self._cores, self._with_gpu = share_of(nodes, asked, self._jobs)
            # An actor sees at most one GPU, the one that Ray has assigned to it.
            device = "cuda" if asked.startswith("cuda") else asked
            self._options = replace(self._options, device=device, threads=max(1, self._cores // self._jobs))
            self._begin_session()
            self._wait_for_the_first()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the readers and disconnect from the cluster; shut down a local cluster."""
        if self._ray is not None:
            for hand in [*self._opening.values(), *self._hands]:
                self._kill(hand)
            with suppress(Exception):
                self._ray.shutdown()
            self._ray = None
        if self._session:
            files.remove_tree(self._out, self._session)

    def _begin_session(self) -> None:
        self._session = f"{STATE_DIR}/{_SESSION}{secrets.token_hex(8)}"
        with files.sink_errors(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
            folder = files.make_folder(self._out, self._session)
            token = secrets.token_hex(16)
            files.write_text(self._out, f"{self._session}/{PROBE}", token)
        self._options = replace(self._options, session=folder, token=token)

    def _wait_for_the_first(self) -> None:
        since = time.monotonic()
        reported = False
        while not self._hands:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._grow(self._jobs)
            self._hear([*self._opening])
            if not reported and time.monotonic() - since > 30:
                reported = True
                share = f"{self._cores} CPU core(s){' and a GPU' if self._with_gpu else ''}"
                self._report.note(
                    f"waiting until {share} of the Ray cluster are free; `ray status` shows what is in use"
                )

    def clean(self) -> None:
        """Remove the files of earlier drivers that were killed. The caller holds the lock of the output folder."""
        with suppress(OSError):
            for path in (self._out / STATE_DIR).iterdir():
                if path.name.startswith(_SESSION) and f"{STATE_DIR}/{path.name}" != self._session:
                    files.remove_tree(self._out, f"{STATE_DIR}/{path.name}")

    def read(
        self, specs: Mapping[int, SourceSpec], last: Sequence[int], disk: DiskSink
    ) -> None:
        """Read all sources and collect their results; sources with an index in `last` are read last, one by one.

        Raises StreamgateError if the run cannot continue.
        """
        self._specs, self._disk, self._alone = specs, disk, set(last)
        self._waiting = waiting = deque([*(index for index in specs if index not in last), *last])
        until = None
        while waiting or any(hand.reading for hand in self._hands):
            if self._stop.is_set():
                if until is None:
                    until = time.monotonic() + _STOP_S
                    waiting.clear()
                    for hand in self._hands:
                        hand.actor.stop.remote()
                if time.monotonic() > until:
                    self._report.warn(
                        "readers did not stop in time; the results of the sources that they were reading are lost, so "
                        "read these sources again with --resume"
                    )
                    return
            self._grow(len(waiting))
            self._hand_out()
            polls = [hand.polled for hand in self._hands if hand.polled is not None]
            refs = [*self._opening, *(ref for hand in self._hands for ref in hand.reading), *polls]
            if not refs:
                raise StreamgateError(f"all readers on the Ray cluster have ended ({self._why})")
            self._hear(refs)
            self._poll()

    def _grow(self, waiting: int) -> None:
        """Request as many readers as the cluster has room for, plus one for a node that may join later."""
        free = sum(self._jobs - len(hand.reading) for hand in self._hands if not hand.alone)
        wanted = -(-max(0, waiting - free) // self._jobs)
        for ref in [*self._opening][wanted:] if wanted < len(self._opening) else []:
            self._kill(self._opening.pop(ref))
        if not wanted or self._failed >= _FAILED_READERS:
            return
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            whole = self._ray.cluster_resources()
            most = whole.get("GPU", 0) if self._with_gpu else whole.get("CPU", 0) // self._cores
            self._fits = max(1, int(most))
        room = self._fits - len(self._hands) + (1 if self._hands else 0)
        while len(self._opening) < min(wanted, max(1, room)):
            self._made += 1
            name = f"reader{self._made}"
            actor = (
                self._ray.remote(Reader)
                .options(
                    num_cpus=self._cores, num_gpus=int(self._with_gpu), max_concurrency=self._jobs + 2,
                    max_restarts=0, max_task_retries=0,
                )
                .remote(name, self._options)
            )  # fmt: skip
            self._opening[actor.open.remote()] = _Hand(name, actor)

    def _hand_out(self) -> None:
        for hand in self._hands:
            while self._waiting and not hand.alone and len(hand.reading) < self._jobs:
                index = self._waiting[0]
                if index in self._alone:
                    if hand.reading:
                        break
                    hand.alone = True
                self._waiting.popleft()
                hand.reading[hand.actor.read.remote(index, self._specs[index])] = index

    def _poll(self) -> None:
        now = time.monotonic()
        for hand in self._hands:
            if hand.reading and hand.polled is None and now >= hand.poll_at:
                hand.poll_at = now + _POLL_S
                hand.polled = hand.actor.progress.remote()

    def _hear(self, refs: list[Any]) -> None:
        if not refs:
            raise StreamgateError(f"no reader could be started on the Ray cluster ({self._why})")
        done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0.0)
        if not done:
            done, _ = self._ray.wait(refs, num_returns=1, timeout=0.1)
        for ref in done:
            if ref in self._opening:
                self._is_open(self._opening.pop(ref), ref)
                continue
            hand = next((one for one in self._hands if ref in one.reading or ref == one.polled), None)
            if hand is None:
                continue  # ignore an answer from a reader that has died
            try:
                value = self._ray.get(ref)
            except Exception as error:
                self._died(hand, error)
                continue
            if isinstance(value, StreamgateError):
                raise value
            if ref in hand.reading:
                self._finished(hand, hand.reading.pop(ref), value)
            else:
                hand.polled = None
                self._advanced(hand, value)

    def _is_open(self, hand: _Hand, ref: Any) -> None:
        try:
            opened = self._ray.get(ref)
        except Exception as error:
            opened = StreamgateError(f"a reader could not be started on the Ray cluster ({cause_of(error)})")
        if isinstance(opened, tuple) and self._info is not None:
            info, _, host = opened
            if found := differences(run_record(self._info), run_record(info)):
                opened = UsageError(
                    f"node {host} is not used, because its results would differ from those of {self._host}: {found[0]}"
                )
        if isinstance(opened, StreamgateError):
            self._failed += 1
            self._why = str(opened)
            self._kill(hand)
            if not self._hands and (self._failed >= _FAILED_READERS or not isinstance(opened, SinkError)):
                raise opened
            self._report.warn(str(opened))
            return
        info, notes, hand.host = opened
        if self._info is None:
            self._info, self.notes, self._host = info, notes, hand.host
        self._hands.append(hand)

    def _advanced(self, hand: _Hand, advanced: list[SourceProgress]) -> None:
        for one in advanced:
            if one.index not in hand.reading.values():
                continue
            if one.index not in hand.started:
                hand.started.add(one.index)
                self._report.started(one.index, SourceInfo("", one.source_id), one.estimated_frames)
            self._report.advanced(one.index, one.frames, one.kept)

    def _finished(self, hand: _Hand, index: int, finished: Finished) -> None:
        disk, (result, names, notes) = self._disk, finished
        assert disk is not None
        hand.alone = False
        self.notes = list(dict.fromkeys([*self.notes, *notes]))
        source_id = result.source.source_id
        if names:
            folder = self._out / self._session / hand.name
            if source_id in self._taken or disk.done(source_id) is not None:
                result = SourceResult(result.source, status="failed")
                result.error = (
                    f"{result.source.location}: skipped, because a source with the same name and content was already "
                    "read"
                )
            elif not (result.status == "interrupted" and disk.has_more(source_id, result.frames)):
                disk.adopt(folder / source_id, names)
                self._taken.add(source_id)
            files.remove_tree(self._out, f"{self._session}/{hand.name}/{source_id}")
        if result.status != "not_started":
            self._report.finished(index, result)

    def _died(self, hand: _Hand, error: Exception) -> None:
        """Handle the death of a reader.

        If the process died, the sources that the reader was reading are read again, last and one by one, or skipped
        after `_DEATHS` deaths. If the node was lost, these sources are read again next.
        """
        self._hands.remove(hand)
        self._kill(hand)
        lost = sorted(hand.reading.values())
        hand.reading.clear()
        cause = cause_of(error)
        files.remove_tree(self._out, f"{self._session}/{hand.name}")
        if self._stop.is_set():
            return
        by_node = "node" in cause
        again = []
        for index in lost:
            deaths = self._losses if by_node and self._losses[index] < _LOSSES else self._deaths
            deaths[index] += 1
            location = self._specs[index].location
            if self._deaths[index] >= _DEATHS:
                result = SourceResult(SourceInfo(location, ""), status="crashed")
                result.error = (
                    f"{location}: the reader died {_DEATHS} times while it read this source ({cause}); "
                    "the source is skipped"
                )
                self._report.finished(index, result)
                continue
            again.append(location)
            if by_node:
                self._waiting.appendleft(index)
            else:
                self._waiting.append(index)
                self._alone.add(index)
        if again:
            how = "read again" if by_node else "read again, last and one at a time"
            self._report.warn(
                f"a reader on {hand.host} died ({cause}) while it read {', '.join(again)}; these sources will be {how}"
            )
        elif not lost:
            self._report.warn(f"a reader on {hand.host} died ({cause})")

    def _kill(self, hand: _Hand) -> None:
        with suppress(Exception):
            self._ray.kill(hand.actor, no_restart=True)


def absolute(spec: SourceSpec) -> SourceSpec:
    """`spec` with absolute paths, for a process with another working directory."""
    paths = tuple(path.absolute() if isinstance(path, Path) else path for path in spec.paths)
    return replace(spec, paths=paths, root=spec.root.absolute() if isinstance(spec.root, Path) else spec.root)


def options_for(config: Mapping[str, Any], models: str, device: str, decode: str, *, debug: bool) -> ReaderOptions:
    """Options of readers; paths are made absolute, for processes with another working directory."""
    config = {**config, "identity": dict(config["identity"])}
    if only := config["identity"].get("only"):
        config["identity"]["only"] = os.path.abspath(only)
    parts = [os.path.abspath(one) if os.path.isdir(one) else one for one in models.split(",")]
    return ReaderOptions(Path(), "", config, ",".join(parts), device, decode, 1, debug=debug)
