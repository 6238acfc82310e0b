"""A source as it lies in an output folder: its faces with all that judging them anew takes, its picks and notes."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from streamgate.errors import SourceError
from streamgate.frames import Candidate, Evidence, Face, GateResult, Measure, Pose, Status
from streamgate.report.notes import NOTES_NAME
from streamgate.store.jsonlines import SCHEMA, Record

CANDIDATES = "candidates.jsonl.gz"
SPARES = "spares.jsonl"
"""Notes on kept faces that a tuning has put aside; their pictures lie beside it."""

_SHARED = {status: Measure.missing(status) for status in Status if status is not Status.OK}


@dataclass(slots=True)
class StoredSource:
    """One committed source. `faces` are all evaluated ones, `tracks` and `picks` (by track) lines of its records."""

    source_id: str
    folder: Path
    record: Record
    faces: dict[int, list[Candidate]]
    tracks: dict[int, Record]
    picks: dict[int, list[Record]]
    notes: dict[int, Record] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> StoredSource:
        """Raises SourceError for one whose files are missing, torn or of another version: nothing may be left out."""
        record = _json(folder / "source.json")
        faces: dict[int, list[Candidate]] = {}
        for _, candidate in candidate_lines(folder):
            faces.setdefault(candidate.track_id, []).append(candidate)
        picks: dict[int, list[Record]] = {}
        for line in _lines(folder / "faces.jsonl"):
            picks.setdefault(line["track_id"], []).append(line)
        tracks = {line["track_id"]: line for line in _lines(folder / "tracks.jsonl")}
        notes = folder / NOTES_NAME
        found = {line["track_id"]: line for line in _lines(notes)} if notes.is_file() else {}
        return cls(folder.name, folder, record, faces, tracks, picks, found)


def candidate_lines(folder: Path) -> Iterator[tuple[bytes, Candidate]]:
    """The lines of a source's candidates with what they tell. Raises SourceError."""
    path = folder / CANDIDATES
    for line, record in _raw_lines(path):
        try:
            yield line, candidate_of(record)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path) from error


def candidate_of(record: Mapping[str, Any]) -> Candidate:
    """The candidate that a line of candidates.jsonl.gz tells; figures are those of the record, rounded.

    Raises KeyError, TypeError or ValueError for what is no such record.
    """
    pose, captured = record["pose"], record["captured_at"]
    values = dict(record["evidence"])
    failed = set(values.pop("failed"))
    return Candidate(
        track_id=int(record["track_id"]),
        pts_seconds=float(record["pts_seconds"]),
        face=Face(
            np.array(record["box"], np.float32).reshape(4),
            np.array(record["landmarks"], np.float32).reshape(5, 2),
            float(record["detection_score"]),
        ),
        frame_index=record["frame_index"],
        pts_estimated=bool(record["pts_estimated"]),
        captured_at=None if captured is None else datetime.fromisoformat(captured),
        name=record["name"],
        interpolated=bool(record["interpolated"]),
        refined=bool(record["refined"]),
        evidence=Evidence(
            values={name: float(value) for name, value in values.items() if value is not None},
            pose=None if pose is None else Pose(float(pose["yaw"]), float(pose["pitch"]), float(pose["roll"])),
            failed=failed,
        ),
        measures={name: _measure_of(measure) for name, measure in record["measures"].items()},
        quality=record["quality"],
        gate=GateResult(bool(record["gate"]["passed"]), tuple(record["gate"]["reasons"])),
    )


def _measure_of(record: Mapping[str, Any]) -> Measure:
    status = Status(record["status"])
    return _SHARED[status] if status is not Status.OK else Measure(record["raw"], record["scalar"], status)


def _json(path: Path) -> Record:
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror or error}); run its source again") from None
    except (ValueError, RecursionError):
        raise _damaged(path) from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise _damaged(path)
    return record


def _lines(path: Path) -> Iterator[Record]:
    for _, record in _raw_lines(path):
        if type(record.get("track_id")) is not int:
            raise _damaged(path)
        yield record


def _raw_lines(path: Path) -> Iterator[tuple[bytes, Record]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for line in file:
                record = json.loads(line)
                if not isinstance(record, dict) or record.get("schema") != SCHEMA:
                    raise _damaged(path)
                yield line, record
    except FileNotFoundError:
        raise SourceError(
            f"{path} is not there, so its faces cannot be judged anew; run its source again (output.candidates=true)"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError):
        raise _damaged(path) from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror or error})") from None


def _damaged(path: Path) -> SourceError:
    return SourceError(
        f"{path} is cut off, damaged or of another version; nothing was changed. Remove the folder {path.parent} and "
        "run its source again with --resume"
    )
