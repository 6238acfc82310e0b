"""What the parent process of `streamgate run` and its worker share: the request, the state, and how the run ended.

This module is cheap to import, because the parent must load neither numpy nor a decoder nor the inference runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import SourceError, StreamgateError
from streamgate.sharding import Shard
from streamgate.store.lock import Lock
from streamgate.store.run import RunInfo, SourceInfo, SourceResult


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The options of `streamgate run`. `flags` maps configuration keys to values, None for flags not given."""

    inputs: tuple[str, ...]
    out: Path
    flags: Mapping[str, Any]
    sinks: tuple[str, ...] = ()
    sink_retry: float = 30.0
    sequence_fps: float | None = None
    jobs: int = 1
    """Number of sources read at once; 0: as many as suit the machine (`runtime.jobs`)."""
    overwrite: bool = False
    resume: bool = False
    shard: Shard | None = None
    """Only the sources of this shard are read; `out` is the shard's folder."""
    as_json: bool = False
    log_level: str = "info"
    """Verbosity on standard error: "error", "warning", "info" or "debug"; each includes those before it."""
    device: str = "auto"
    decode: str = "auto"
    preset: str = "studio"
    models: str = DEFAULT_MODELS
    settings: tuple[str, ...] = ()
    ray: str | None = None
    """Address of the Ray cluster whose nodes read the sources."""


@dataclass(slots=True)
class RunState:
    """The state of a run so far. Each new worker receives a copy and continues the run from there.

    Attributes:
        probing: path of the file that is being opened to detect its type, because the name does not show it.
        failed_probes: paths of files whose type could not be detected, because a worker died.
        found: the sources found in the inputs.
        info, config: the properties and configuration of the run, from the first worker; later workers use them too.
        words: the wording of each reason, once a worker has reported it.
        lock: the lock of the output folder, once a worker has taken it.
        begun: whether this run has taken over the output folder; then all sources committed there belong to this run.
        reading: indexes of the sources that are being read.
        committed: indexes of sources that were committed by a worker which died before it could report them.
        ids: source ids by index, of the sources that were opened.
        deaths: how often the worker died while a source was being read, by index.
        idle_deaths: how often in a row the worker died while no source was being read.
        last: indexes of sources that are read last and alone, because they may crash the worker.
        results: results by index.
        closing: whether reading has ended, so that a new worker would only write the run-wide files.
    """

    began: float
    probing: str | None = None
    failed_probes: set[str] = field(default_factory=set)
    found: InputsFound | None = None
    info: RunInfo | None = None
    config: Mapping[str, Any] | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    lock: Lock | None = None
    begun: bool = False
    reading: set[int] = field(default_factory=set)
    committed: set[int] = field(default_factory=set)
    ids: dict[int, str] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)
    idle_deaths: int = 0
    last: set[int] = field(default_factory=set)
    results: dict[int, SourceResult] = field(default_factory=dict)
    closing: bool = False

    def all_results(self) -> list[SourceResult]:
        """Results of all sources, in the order of the inputs, then a failed result for each error in the inputs."""
        assert self.found is not None
        results = [
            self.results.get(index) or SourceResult(SourceInfo(label, self.ids.get(index, "")), status="not_started")
            for index, label in enumerate(self.found.labels)
        ]
        return results + [
            SourceResult(SourceInfo(error.location or "", ""), status="failed", error=str(error))
            for error in self.found.errors
        ]


@dataclass(frozen=True, slots=True)
class InputsFound:
    """The sources found in the inputs. `specs` are pickled, because the parent does not use them."""

    labels: tuple[str, ...]
    specs: bytes
    errors: tuple[SourceError, ...]
    warnings: tuple[str, ...]
    duplicates: tuple[tuple[str, str], ...]
    skipped: str
    """A description of what was skipped in the inputs."""
    sizes: tuple[int, ...] = ()
    """Size of each source in bytes."""
    elsewhere: int = 0
    """Number of sources that other shards read."""


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """The worker's last message.

    Attributes:
        error: the error that ended the whole run; None if the run-wide files were written, because every source was
            processed or the run was asked to stop.
        interrupted: whether the run was asked to stop.
        undelivered: a message about events that a sink did not receive, if any.
    """

    error: StreamgateError | None = None
    interrupted: bool = False
    undelivered: str | None = None
