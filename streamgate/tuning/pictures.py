"""Pictures of kept faces that need no footage: those that lie in the folder, and those put aside by earlier tunings.

OUT/.streamgate/spares/<source_id>/track_0001/3.033333.json    a face that was kept once: its record and note
OUT/.streamgate/spares/<source_id>/track_0001/3.033333.png     its picture; further ones as `3.033333.arcface.png`

So a limit that is turned back gives back what was there, footage or not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from streamgate.store import files
from streamgate.store.jsonlines import Record, dumps
from streamgate.tuning.staging import carry

FOLDER = "spares"


@dataclass(frozen=True, slots=True)
class KeptFace:
    """A face with pictures: its line of faces.jsonl, its entry in the notes, and its files by what follows the rank
    in their names (".png", ".arcface.png")."""

    record: Record
    note: Record
    files: Mapping[str, Path]

    @property
    def track_id(self) -> int:
        return int(self.record["track_id"])

    @property
    def pts_seconds(self) -> float:
        return float(self.record["pts_seconds"])


def kept_face(out: Path, record: Record, note: Record | None) -> KeptFace | None:
    """The face of a line of faces.jsonl; None when one of its pictures is not there."""
    names = _image_names(record)
    paths = {_ending(name, record["rank"]): out / name for name in names}
    if not names or not all(path.is_file() for path in paths.values()):
        return None
    return KeptFace(record, note or {"rank": record["rank"], "thumbnail": None, "heat": None}, paths)


def ranked_record(face: KeptFace, rank: int) -> Record:
    """Its record under another rank: ids and file names follow."""
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


class Spares:
    """Faces of one source that were kept once. Writing raises OSError."""

    def __init__(self, out: Path, source_id: str) -> None:
        self._folder = out / ".streamgate" / FOLDER / source_id

    def read(self) -> list[KeptFace]:
        """Those that are complete; what is damaged is passed over."""
        found = []
        for path in sorted(self._folder.glob("track_*/*.json")) if self._folder.is_dir() else []:
            try:
                stored: Any = json.loads(path.read_bytes())
                stem = path.name.removesuffix(".json")
                paths = {ending: path.with_name(stem + ending) for ending in stored["files"]}
                face = KeptFace(stored["record"], stored["note"], paths)
                if all(one.is_file() for one in paths.values()) and face.track_id >= 0 and face.pts_seconds >= 0:
                    found.append(face)
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def put(self, face: KeptFace) -> None:
        """Put a face aside; its files stay where they are too."""
        folder = self._folder / f"track_{face.track_id:04d}"
        stem = f"{face.pts_seconds:.6f}"
        folder.mkdir(parents=True, exist_ok=True)
        for ending, path in face.files.items():
            target = folder / (stem + ending)
            if path != target:
                target.unlink(missing_ok=True)
                carry(path, target)
        told = {"record": face.record, "note": face.note, "files": sorted(face.files)}
        files.write_text(folder / f"{stem}.json", dumps(told))


def _image_names(record: Mapping[str, Any]) -> list[str]:
    crops = record.get("crops")
    further = [crop.get("image") for crop in crops.values()] if isinstance(crops, dict) else []
    names = dict.fromkeys(name for name in [record.get("image"), *further] if isinstance(name, str))
    return [name for name in names if ".." not in PurePosixPath(name).parts and not PurePosixPath(name).is_absolute()]


def _ending(name: str, rank: int) -> str:
    return PurePosixPath(name).name.removeprefix(str(rank))


def _renamed(name: str, old: int, rank: int) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(f"{rank}{_ending(name, old)}"))
