"""What the worker process of `streamgate run` tells its parent, and what the parent remembers of it.

Both are light to import: the parent loads neither numpy nor a decoder nor the inference runtime.
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
    quiet: bool = False
    device: str = "auto"
    decode: str = "auto"
    preset: str = "studio"
    models: str = DEFAULT_MODELS
    settings: tuple[str, ...] = ()


@dataclass(slots=True)
class RunState:
    """What a run knows by now: a worker is forked with it and goes on from there.

    Attributes:
        looking: a file whose name does not tell what it is, while that is found out.
        shunned: such files at which a worker died.
        found: what the inputs led to.
        info, config: of the first worker, so that a later one does not run with something else.
        words: how each reason reads, as far as a worker has said it.
        lock: of the output folder, once a worker has taken it.
        begun: the folder has been taken over; what is committed there is of this run.
        reading: places of the sources under way.
        landed: places of those that have their final name although a worker died before it could tell.
        ids: source id by place, of those that were opened.
        deaths: how often the worker died while a source was under way, by place.
        last: places that are done after the others and alone, for they may be what the worker dies of.
        results: by place.
        closing: no source is read any more; what there is gets its end.
    """

    began: float
    looking: Looking | None = None
    shunned: set[str] = field(default_factory=set)
    found: Found | None = None
    info: RunInfo | None = None
    config: Mapping[str, Any] | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    lock: Lock | None = None
    begun: bool = False
    reading: set[int] = field(default_factory=set)
    landed: set[int] = field(default_factory=set)
    ids: dict[int, str] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)
    last: set[int] = field(default_factory=set)
    results: dict[int, SourceResult] = field(default_factory=dict)
    closing: bool = False

    def all_results(self) -> list[SourceResult]:
        """Results in the order of the inputs; those that could not be sources come last."""
        assert self.found is not None
        results = [
            self.results.get(place) or SourceResult(SourceInfo(label, self.ids.get(place, "")), status="not_started")
            for place, label in enumerate(self.found.labels)
        ]
        return results + [
            SourceResult(SourceInfo(error.location or "", ""), status="failed", error=str(error))
            for error in self.found.errors
        ]


@dataclass(frozen=True, slots=True)
class Found:
    """What the inputs led to; `specs` are pickled, for they mean nothing to the parent."""

    labels: tuple[str, ...]
    specs: bytes
    errors: tuple[SourceError, ...]
    warnings: tuple[str, ...]
    duplicates: tuple[tuple[str, str], ...]
    skipped: int
    elsewhere: int = 0
    """Sources that other shards read."""


@dataclass(frozen=True, slots=True)
class Looking:
    """A file whose name does not tell what it is, is about to be opened; `label` is for people."""

    path: str
    label: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the user."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Locked:
    """The networks are open and the folder is ours; the lock's descriptor comes with this."""

    info: RunInfo
    config: Mapping[str, Any]
    words: Mapping[str, str]
    """How each reason reads."""


@dataclass(frozen=True, slots=True)
class Known:
    """Of a resumed run: sources that are done, and those under way when it died, by place."""

    done: Mapping[int, SourceResult]
    unfinished: frozenset[int]


@dataclass(frozen=True, slots=True)
class Begun:
    """The folder has been taken over."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A source is about to be opened."""

    place: int


@dataclass(frozen=True, slots=True)
class Started:
    """A source was opened."""

    place: int
    source: SourceInfo
    estimated_frames: int | None


@dataclass(frozen=True, slots=True)
class Advanced:
    """So far a source is read."""

    place: int
    frames: int
    kept: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A source is done with; what it gave is committed."""

    place: int
    result: SourceResult


@dataclass(frozen=True, slots=True)
class Failed:
    """The whole run cannot go on."""

    error: StreamgateError


@dataclass(frozen=True, slots=True)
class Done:
    """Every source had its turn, or the run was asked to stop; what covers the run is written.

    `undelivered` says what a destination other than the disk did not get.
    """

    interrupted: bool
    undelivered: str | None = None
