"""Reading what `streamgate run` left in a folder, for everything that is made from it afterwards.

The folder may have been edited by anybody, so nothing in it is believed before it has been looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from streamgate.errors import SourceError, display
from streamgate.store.jsonlines import SCHEMA

Record = dict[str, Any]

_TEXTS = ("id", "source", "source_id", "calibration_id")


@dataclass(frozen=True, slots=True)
class Results:
    """A folder with results; see `open`."""

    out: Path

    @classmethod
    def open(cls, out: Path) -> Results:
        """Raises SourceError when `out` holds no results of `streamgate run`."""
        if not (out / "faces.jsonl").is_file():
            what = "is no folder" if not out.is_dir() else "holds no results of `streamgate run` (no faces.jsonl)"
            raise SourceError(f"{display(out)}: {what}; give the folder that was given to run with -o")
        return cls(out)

    @property
    def house(self) -> Path:
        """Where streamgate keeps its manifest and lock."""
        return self.out / ".streamgate"

    def faces(self) -> Iterator[Record]:
        """The records of faces.jsonl in their order, one at a time.

        Raises SourceError for a line that is no record of this version.
        """
        path = self.out / "faces.jsonl"
        try:
            with open(path, "rb") as file:
                for number, line in enumerate(file, 1):
                    yield _record(path, number, line)
        except OSError as error:
            raise SourceError(f"{display(path)}: cannot be read ({error.strerror or error})") from error

    def person_names(self) -> dict[Any, str]:
        """What users call persons, by person_id; empty without persons. Raises SourceError for a damaged file."""
        path = self.out / "persons.jsonl"
        try:
            with open(path, "rb") as file:
                found = [json.loads(line) for line in file]
            return {one["person_id"]: one["name"] for one in found if isinstance(one["name"], str)}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SourceError(f"{display(path)}: cannot be read ({error.strerror or error})") from error
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise SourceError(
                f"{display(path)}: is damaged; remove it: `run --resume`, or a name given with `streamgate people`, "
                "writes it anew"
            ) from error

    def image(self, name: str) -> Path:
        """The file that a record names, inside the folder. Raises SourceError when it is not there."""
        pure = PurePosixPath(name)
        # Nobody is told to remove a folder that a damaged record makes up.
        again = "run its source again"
        inside = bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts and "\0" not in name
        path = self.out.joinpath(*pure.parts) if inside else self.out
        try:
            if inside and (self.out / pure.parts[0] / "source.json").is_file():
                again = f"remove the folder {display(self.out / pure.parts[0])} and run its source again with --resume"
            inside = inside and path.resolve(strict=True).is_relative_to(self.out.resolve()) and path.is_file()
        except (OSError, RuntimeError):
            inside = False
        if not inside:
            raise SourceError(
                f"{display(self.out)}: {display(name)}, which faces.jsonl names, is not there; {again}"
            )
        return path


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        record = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or type(record.get("schema")) is not int:
        raise SourceError(f"{display(path)}, line {number}: is no record; the file is damaged, run again")
    if record["schema"] != SCHEMA:
        raise SourceError(
            f"{display(path)}: was written by another version of streamgate (schema {record['schema']}, "
            f"this one knows {SCHEMA}); use that version"
        )
    if not (
        all(isinstance(record.get(key), str) for key in _TEXTS)
        and all(type(record.get(key)) is int for key in ("track_id", "rank"))
        and isinstance(record.get("image"), str)
    ):
        raise SourceError(f"{display(path)}, line {number}: is no record of a face; the file is damaged, run again")
    return record


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
