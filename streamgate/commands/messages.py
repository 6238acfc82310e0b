"""What the parent process of `streamgate run` and its worker know in common: the request, the state, how it ended.

Light to import: the parent loads neither numpy nor a decoder nor the inference runtime.
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
    """The options of `streamgate run`; `flags` are named flags by configuration key, None where not given."""

    inputs: tuple[str, ...]
    out: Path
    flags: Mapping[str, Any]
    sinks: tuple[str, ...] = ()
    sink_retry: float = 30.0
    sequence_fps: float | None = None
    jobs: int = 1
    overwrite: bool = False
    resume: bool = False
    shard: Shard | None = None
    """Only the sources of this shard are read; `out` is its folder."""
    as_json: bool = False
    log_level: str = "info"
    """What is said on standard error: "error", "warning", "info" or "debug", each with those before it."""
    device: str = "auto"
    decode: str = "auto"
    preset: str = "studio"
    models: str = DEFAULT_MODELS
    settings: tuple[str, ...] = ()


@dataclass(slots=True)
class RunState:
    """What a run knows by now: a worker is forked with it and continues from there.

    Attributes:
        probing: path of a file whose name does not say what it is, while it is opened to find out.
        failed_probes: paths of such files at which a worker died.
        found: what the inputs led to.
        info, config: of the first worker, so that a later one does not run with something else.
        words: how each reason reads, as far as a worker has said it.
        lock: of the output folder, once a worker has taken it.
        begun: the folder has been taken over; what is committed there is of this run.
        reading: indexes of the sources that are being read.
        committed: indexes of those that were committed although a worker died before it could report it.
        ids: source id by index, of those that were opened.
        deaths: how often the worker died while a source was being read, by index.
        idle_deaths: how often in a row it died while none was.
        last: indexes that are read after the others and alone, since they may be what the worker dies of.
        results: by index.
        closing: no further source is read; what was found is completed.
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
        """Results in the order of the inputs; those that could not be sources come last."""
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
    """What the inputs led to; `specs` are pickled, for they mean nothing to the parent."""

    labels: tuple[str, ...]
    specs: bytes
    errors: tuple[SourceError, ...]
    warnings: tuple[str, ...]
    duplicates: tuple[tuple[str, str], ...]
    skipped: str
    """What was skipped, in words."""
    sizes: tuple[int, ...] = ()
    """Bytes of each source."""
    elsewhere: int = 0
    """Sources that other shards read."""


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """The worker's last message.

    Attributes:
        error: what the whole run cannot continue with; None when every source had its turn, or the run was asked to
            stop, and what covers the run is written.
        interrupted: it was asked to stop.
        undelivered: what a destination other than the disk did not get.
    """

    error: StreamgateError | None = None
    interrupted: bool = False
    undelivered: str | None = None
