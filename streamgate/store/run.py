"""Data of a run and of its sources, and the records source.json and summary.json. This module is cheap to import."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamgate.redaction import redact_url, scrub
from streamgate.store.jsonlines import SCHEMA, Record, redacted


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known about a source before it is read.

    `location` is shown to users (redacted). `source_id` is the name of the source's folder and part of its event ids.
    """

    location: str
    source_id: str


@dataclass(slots=True)
class SourceResult:
    """The result of a source, for source.json and summary.json. All values that vary from run to run are in `timing`.

    Attributes:
        status: "done", "interrupted" (the results so far are committed), "failed" (nothing committed), "crashed" (the
            worker process died twice while reading it; nothing committed), "not_started" (the run ended before the
            source was opened) or "duplicate" (same name and content as an earlier input).
        error: one line for the user if the source failed, or if reading stopped with an error after some frames.
        frames: number of frames of the video.
        frames_decoded: number of decoded frames; the others were not needed (see `decoding.discard`).
        combed: number of frames that were deinterlaced although they are not marked as interlaced.
        pictures: whether the source consists of unrelated pictures, which `frames` counts; each face in them is a
            track.
        turned: degrees clockwise by which the frames were rotated in addition to the rotation in the metadata.
        rejected: number of evaluated faces by gate reason.
    """

    source: SourceInfo
    status: str = "done"
    error: str | None = None
    frames: int = 0
    frames_decoded: int = 0
    decode_errors: int = 0
    pts_estimated: int = 0
    combed: int = 0
    pictures: bool = False
    turned: int = 0
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


TOTALS = ("frames", "frames_decoded", "decode_errors", "combed", "faces_detected", "faces_scored", "tracks", "kept")
"""Counts that summary.json adds up over all sources."""


@dataclass(frozen=True, slots=True)
class IdentityInfo:
    """How tracks are merged into persons in a run.

    `store` is the setting `identity.store`. `threshold` is the minimum similarity of two tracks of one person; None if
    the recognizer has no known threshold, in which case there are no persons.
    """

    store: str = "none"
    threshold: float | None = None

    @property
    def wanted(self) -> bool:
        """Whether tracks are merged into persons."""
        return self.store != "none" and self.threshold is not None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Properties of a whole run, which are written to the manifest, the summary and the records."""

    config: Mapping[str, Any]
    """The whole configuration, redacted."""
    measure_set: tuple[str, ...]
    absent_measures: Mapping[str, str]
    """Measures of the preset that are not in `measure_set`, each with the status that says why it is absent."""
    calibration_id: str
    weights: tuple[Mapping[str, Any], ...]
    versions: Mapping[str, str]
    identity: IdentityInfo = IdentityInfo()
    device: str = ""
    """The device on which the networks ran, and why it was chosen."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """`Calibration.summary()`: the mappings of raw values to scalars, sufficient to evaluate stored evidence again."""


def source_record(result: SourceResult) -> Record:
    """The contents of source.json and, without `schema` and `timing`, of an entry of `sources` in summary.json."""
    return {
        "schema": SCHEMA,
        "source": redact_url(result.source.location),
        "source_id": result.source.source_id,
        "status": result.status,
        "error": None if result.error is None else scrub(result.error),
        "frames": result.frames,
        "frames_decoded": result.frames_decoded,
        "decode_errors": result.decode_errors,
        "pts_estimated": result.pts_estimated,
        "combed": result.combed,
        "pictures": result.pictures,
        "turned": result.turned,
        "duration_seconds": _rounded(result.duration_seconds),
        "width": result.width,
        "height": result.height,
        "faces_detected": result.faces_detected,
        "faces_scored": result.faces_scored,
        "tracks": result.tracks,
        "kept": result.kept,
        "rejected": counts(result.rejected),
        "notes": [scrub(note) for note in result.notes],
        "timing": _timing(result.timing),
    }


def summary_record(
    run: RunInfo,
    sources: Iterable[Mapping[str, Any]],
    timing: Mapping[str, float],
    *,
    complete: bool = True,
    persons: int | None = None,
) -> Record:
    """The contents of summary.json; `sources` are `source_record`s, in the order of the file.

    `complete` is false if the run stopped before all of its inputs were processed. `persons` is None if tracks were not
    merged into persons. The keys are:

        schema, complete, totals {sources {STATUS: n}, frames, ..., kept, persons | null, rejected {reason: faces}},
        sources [source_record without schema and timing], measure_set, absent_measures {NAME: status},
        calibration_id, calibration {mappings {NAME: [x0, w]}, absent {NAME: status}, learned {NAME: id}}, weights,
        versions, device, config, timing {run {...}, sources {SOURCE_ID: {...}}}
    """
    entries: list[Record] = []
    times: dict[str, Any] = {}
    statuses: dict[str, int] = {}
    totals = dict.fromkeys(TOTALS, 0)
    rejected: dict[str, int] = {}
    for source in sources:
        entries.append({key: value for key, value in source.items() if key not in ("schema", "timing")})
        if source["timing"]:
            times[source["source_id"]] = source["timing"]
        statuses[source["status"]] = statuses.get(source["status"], 0) + 1
        for key in TOTALS:
            # A record of an earlier version has no `frames_decoded`: that version decoded every frame.
            totals[key] += source["frames"] if key == "frames_decoded" and key not in source else source[key]
        for reason, count in source["rejected"].items():
            rejected[reason] = rejected.get(reason, 0) + count
    return {
        "schema": SCHEMA,
        "complete": complete,
        "totals": {"sources": counts(statuses), **totals, "persons": persons, "rejected": counts(rejected)},
        "sources": entries,
        "measure_set": list(run.measure_set),
        "absent_measures": dict(run.absent_measures),
        "calibration_id": run.calibration_id,
        "calibration": dict(run.calibration),
        "weights": redacted([dict(weights) for weights in run.weights]),
        "versions": dict(run.versions),
        "device": run.device,
        "config": redacted(run.config),
        "timing": {"run": _timing(timing), "sources": times},
    }


def counts(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts as integers, sorted by name."""
    return {name: int(counts[name]) for name in sorted(counts)}


def _timing(timing: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _rounded(value) for name, value in timing.items()}


def _rounded(value: float) -> float | None:
    return round(float(value), 6) + 0.0 if math.isfinite(value) else None
