"""Reading an output folder of `run`, whatever state it is in: what is damaged is named and the rest is read."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from streamgate.errors import SinkError, SourceError
from streamgate.report.notes import NOTES_NAME
from streamgate.store.jsonlines import SCHEMA, Record
from streamgate.store.manifest import Manifest

_FACE_KEYS = {
    "source_id": str, "track_id": int, "rank": int, "pts_seconds": (int, float), "measures": dict, "gate": dict,
    "track": dict, "box": list,
}  # fmt: skip
_TRACK_KEYS = {"track_id": int, "first_pts": (int, float), "last_pts": (int, float), "kept": int, "rejected": dict}
_MANY = 20


@dataclass
class RunFolder:
    """Results of a run at `out`: `summary` is summary.json, `source_ids` the committed sources, sorted.

    What cannot be read is passed over and told in `problems`, a line each.
    """

    out: Path
    summary: Record
    source_ids: list[str]
    manifest: Manifest
    problems: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, out: Path) -> RunFolder:
        """Raises SourceError for a folder that holds no results which this version can read."""
        if not out.is_dir():
            raise SourceError(f"{out}: no such folder; name the folder that `streamgate run` wrote (-o)")
        house = out / ".streamgate"
        if not (house / "manifest.json").is_file():
            live = (house / "lock").exists()
            what = "is written by `streamgate serve`" if live else "holds no results of `streamgate run`"
            raise SourceError(f"{out}: {what}; name a folder that `streamgate run` wrote (-o)")
        try:
            manifest = Manifest.read(house)
        except SinkError as error:
            raise SourceError(
                f"{out}: its manifest is damaged or of another version of streamgate; read it with that version, "
                "or run the sources again into another folder"
            ) from error
        return cls(out, _read_summary(out), manifest.present(), manifest)

    def faces(self) -> Iterator[Record]:
        """The lines of faces.jsonl in their order."""
        yield from self._lines(self.out / "faces.jsonl", _FACE_KEYS)

    def placed_faces(self) -> Iterator[tuple[int, Record]]:
        """The same, each with its place in the file for `face_at`."""
        yield from self._placed(self.out / "faces.jsonl", _FACE_KEYS)

    def face_at(self, place: int) -> Record:
        """The line of faces.jsonl at a place that `placed_faces` gave: all of them would not fit into memory."""
        try:
            with open(self.out / "faces.jsonl", "rb") as file:
                file.seek(place)
                return dict(json.loads(file.readline()))
        except (OSError, ValueError, TypeError) as error:
            raise SourceError(f"{self.out / 'faces.jsonl'} changed while it was read; try again") from error

    def tracks(self, source_id: str) -> Iterator[Record]:
        """How each track of a source ended, by track."""
        yield from self._lines(self.out / source_id / "tracks.jsonl", _TRACK_KEYS)

    def candidates(self, source_id: str) -> Iterator[Record]:
        """Every evaluated face of a source in the order of evaluation; nothing where they were not written."""
        path = self.out / source_id / "candidates.jsonl.gz"
        if path.exists():
            yield from self._lines(path, {"track_id": int, "pts_seconds": (int, float), "gate": dict})

    def has_notes(self, source_id: str) -> bool:
        """Whether the source stored what the report shows beside the records."""
        return (self.out / source_id / NOTES_NAME).is_file()

    def notes(self, source_id: str) -> dict[int, Record]:
        """What the source stored for the report, by track; empty where it stored nothing."""
        if not self.has_notes(source_id):
            return {}
        wanted = {"track_id": int, "series": list, "shots": list, "misses": list}
        return {note["track_id"]: note for note in self._lines(self.out / source_id / NOTES_NAME, wanted)}

    def note_problem(self, text: str) -> None:
        """Tell something once; after many a count says enough."""
        if text not in self.problems and len(self.problems) < _MANY:
            self.problems.append(text)

    def _lines(self, path: Path, wanted: dict[str, Any]) -> Iterator[Record]:
        for _, record in self._placed(path, wanted):
            yield record

    def _placed(self, path: Path, wanted: dict[str, Any]) -> Iterator[tuple[int, Record]]:
        """Records of a file, gzipped or not; lines that are none, and a torn end, are told and passed over."""
        name = path.relative_to(self.out)
        bad = place = 0
        try:
            with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
                for line in file:
                    record = _record(line, wanted)
                    if record is None:
                        bad += 1
                    else:
                        yield place, record
                    place += len(line)
        except FileNotFoundError:
            self.note_problem(f"{name} is missing; run its source again to have it back")
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.note_problem(f"{name} is cut off or damaged; what could be read of it is shown")
        except OSError as error:
            self.note_problem(f"{name} cannot be read ({error.strerror or error})")
        if bad:
            lines = "line is" if bad == 1 else "lines are"
            self.note_problem(f"{name}: {bad} {lines} damaged or of another version and left out")


def _read_summary(out: Path) -> Record:
    path = out / "summary.json"
    remedy = "run the same command again with --resume, which writes it anew"
    try:
        summary = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SourceError(f"{path} is missing; {remedy}") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError):
        raise SourceError(f"{path} is damaged; {remedy}") from None
    shape = {"sources": list, "totals": dict, "config": dict, "weights": list, "measure_set": list}
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
        found = summary.get("schema") if isinstance(summary, dict) else None
        raise SourceError(
            f"{path}: schema {found!r}, and this version reads {SCHEMA}; use the version of streamgate that wrote it"
        )
    if not all(isinstance(summary.get(key), kind) for key, kind in shape.items()):
        raise SourceError(f"{path} is damaged; {remedy}")
    return dict(summary)


def _record(line: bytes, wanted: dict[str, Any]) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("schema", SCHEMA) != SCHEMA:
        return None
    return record if all(isinstance(record.get(key), kind) for key, kind in wanted.items()) else None


class NotesShelf:
    """The notes of the sources asked for last, since the faces of a person are shown source by source."""

    def __init__(self, folder: RunFolder, held: int = 4) -> None:
        self.notes = lru_cache(maxsize=held)(folder.notes)
        self.tracks = lru_cache(maxsize=held)(
            lambda source_id: {one["track_id"]: one for one in folder.tracks(source_id)}
        )
