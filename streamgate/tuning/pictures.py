"""Existing pictures of faces: those in the results, and spares, which earlier tunings have saved.

OUT/.streamgate/spares/<source_id>/track_0001/3.033333.json    the record and the note of a formerly kept face
OUT/.streamgate/spares/<source_id>/track_0001/3.033333.png     its picture; other crops: `3.033333.arcface.png`

With spares, resetting a limit restores the earlier faces even without the footage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from streamgate.store import files, jsonlines, schemas
from streamgate.store.folder import RunFolder
from streamgate.store.jsonlines import Record, dumps
from streamgate.store.layout import STATE_DIR
from streamgate.store.schemas import mismatch


@dataclass(frozen=True, slots=True)
class KeptFace:
    """A face with pictures.

    Attributes:
        record: its record in faces.jsonl.
        note: its entry in the notes for the report.
        files: names of its files, relative to OUT; the keys are the parts of the names after the rank (".png",
            ".arcface.png").
    """

    record: Record
    note: Record
    files: Mapping[str, str]

    @property
    def track_id(self) -> int:
        return int(self.record["track_id"])

    @property
    def pts_seconds(self) -> float:
        return float(self.record["pts_seconds"])


def kept_face(folder: RunFolder, record: Record, note: Record | None) -> KeptFace | None:
    """The face of a record in faces.jsonl; None if any of its pictures is missing."""
    names = {_ending(name, record["rank"]): name for name in _image_names(record)}
    if not all(map(folder.has, names.values())):
        return None
    return KeptFace(record, note or {"rank": record["rank"], "thumbnail": None, "heat": None}, names)


def ranked_record(face: KeptFace, rank: int) -> Record:
    """The record of a face with another rank; its id and file names are changed accordingly."""
    record, old = dict(face.record), face.record["rank"]
    head, _, tail = str(record["id"]).rpartition(f"/final/{old}/")
    record["rank"], record["id"] = rank, f"{head}/final/{rank}/{tail}"
    renamed = {name: _renamed(name, old, rank) for name in _image_names(record)}
    record["image"] = renamed[record["image"]]
    if isinstance(record.get("crops"), dict):
        record["crops"] = {
            key: {**crop, "image": renamed[crop["image"]]} for key, crop in record["crops"].items()
        }
    return record


def read_spares(folder: RunFolder, source_id: str) -> list[KeptFace]:
    """The formerly kept faces of a source; damaged and incomplete ones are skipped."""
    out, found = folder.out, []
    for path in sorted((out / _spares(source_id)).glob("track_*/*.json")):
        name = path.relative_to(out).as_posix()
        try:
            stored = jsonlines.parse(folder.content(name, jsonlines.MAX_LIST_BYTES))
        except (OSError, ValueError):
            continue
        if mismatch(stored, schemas.SPARE) is None:
            names = {ending: name.removesuffix(".json") + ending for ending in stored["files"]}
            if all(map(folder.has, names.values())):
                found.append(KeptFace(stored["record"], stored["note"], names))
    return found


def put_spare(folder: RunFolder, source_id: str, face: KeptFace) -> None:
    """Save a face as a spare. The original files are not removed. Raises OSError."""
    out = folder.out
    stem = f"{_spares(source_id)}/track_{face.track_id:04d}/{face.pts_seconds:.6f}"
    for ending, name in face.files.items():
        target = stem + ending
        if name != target:
            files.remove_listed(out, [target])
            files.make_folder(out, target.rpartition("/")[0])
            files.link_or_copy(out, name, out / target)
    report = {"record": face.record, "note": face.note, "files": sorted(face.files)}
    files.write_text(out, f"{stem}.json", dumps(report))


def _spares(source_id: str) -> str:
    return f"{STATE_DIR}/spares/{source_id}"


def _image_names(record: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys([record["image"], *(crop["image"] for crop in (record.get("crops") or {}).values())])
    return list(names)


def _ending(name: str, rank: int) -> str:
    return PurePosixPath(name).name.removeprefix(str(rank))


def _renamed(name: str, old: int, rank: int) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(f"{rank}{_ending(name, old)}"))
