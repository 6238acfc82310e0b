"""A run and how its sources went, as they stand in an output folder; light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """A source at its start: `location` is for people (redacted), `source_id` names its folder and events."""

    location: str
    source_id: str


@dataclass(slots=True)
class SourceResult:
    """How a source went, for `summary.json`; `timing` holds all that may vary from run to run.

    Attributes:
        status: "done", "interrupted" (what was found until then is committed), "failed" (nothing committed),
            "crashed" (the worker process died twice while it was read; nothing committed), "not_started" (the run
            ended before it) or "duplicate" (same name and content as an earlier input).
        error: one line for the user when failed, or when reading broke off after frames had been given.
        rejected: evaluated faces by gate reason.
    """

    source: SourceInfo
    status: str = "done"
    error: str | None = None
    frames: int = 0
    decode_errors: int = 0
    pts_estimated: int = 0
    duration_seconds: float = 0.0
    width: int = 0
    height: int = 0
    faces_detected: int = 0
    faces_scored: int = 0
    tracks: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)


TOTALS = ("frames", "decode_errors", "faces_detected", "faces_scored", "tracks", "kept")
"""Counts of a source that summary.json adds up."""


@dataclass(frozen=True, slots=True)
class IdentityInfo:
    """How tracks become persons in a run.

    `store` is `identity.store`; `threshold` the least cosine of two tracks of one person, None where the recognizer's
    is unknown: then there are no persons.
    """

    store: str = "none"
    threshold: float | None = None

    @property
    def wanted(self) -> bool:
        """Whether tracks are merged into persons."""
        return self.store != "none" and self.threshold is not None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What stays the same over a run: written into the manifest, the summary and the records."""

    config: Mapping[str, Any]
    """The whole configuration, redacted."""
    measure_set: tuple[str, ...]
    absent_measures: Mapping[str, str]
    """Measures of the preset that are not in the run's set, with the reason (a status)."""
    calibration_id: str
    weights: tuple[Mapping[str, Any], ...]
    versions: Mapping[str, str]
    identity: IdentityInfo = IdentityInfo()
    device: str = ""
    """Where the networks ran, and why there."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """How raw figures become scalars: `Calibration.summary()`; enough to judge stored evidence anew."""
