"""Human labels of faces (good, usable or bad), and the file `labels.csv` that stores them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from streamgate.errors import SourceError, display, one_line
from streamgate.tables import read_table

GOOD, USABLE, BAD = 2, 1, 0
"""The grades, as numbers."""
WORDS = {"good": GOOD, "usable": USABLE, "bad": BAD}
COLUMNS = ("source_id", "track_id", "pts_seconds", "label")
_SHORT = {"g": GOOD, "u": USABLE, "m": USABLE, "b": BAD}


@dataclass(frozen=True, slots=True)
class FaceKey:
    """Identifies a face of a run by source, track, and time in seconds."""

    source_id: str
    track_id: int
    pts_seconds: float

    def __str__(self) -> str:
        return f"{display(self.source_id)}, track {self.track_id}, {self.pts_seconds:.3f} s"


def grade_of(text: str) -> int | None:
    """GOOD, USABLE or BAD for a word or its first letter, or for "m" (mild flaw: usable); None for any other text."""
    word = text.strip().lower()
    return WORDS.get(word, _SHORT.get(word))


def face_key(row: dict[str, str]) -> FaceKey | None:
    """The face that a row with the columns of `labels.csv` refers to; None if a number is not valid."""
    try:
        pts, track = float(row["pts_seconds"]), int(row["track_id"])
    except ValueError:
        return None
    return FaceKey(row["source_id"], track, round(pts, 6)) if math.isfinite(pts) and track >= 0 else None


def read_labels(path: Path) -> tuple[dict[FaceKey, int], list[str]]:
    """Grades by face, and a message for each row that was ignored.

    A face with two different labels is ignored. Raises SourceError if the file is not a table of labels.
    """
    table = read_table(path)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise SourceError(
            f"{display(path)} is not a table of labels: it has no column {', '.join(missing)}; {table.listed}. "
            "Give a file that `streamgate label OUT` wrote"
        )
    found: dict[FaceKey, int] = {}
    contradicted: set[FaceKey] = set()
    problems = []
    for number, row in enumerate(table.rows, 1):
        key, grade = face_key(row), grade_of(row["label"])
        if key is None:
            problems.append(f"row {number}: track_id or pts_seconds is not a valid number")
        elif not row["label"]:
            continue
        elif grade is None:
            problems.append(f"row {number}: {one_line(repr(row['label']), 40)} is not one of {', '.join(WORDS)}")
        elif found.setdefault(key, grade) != grade and key not in contradicted:
            contradicted.add(key)
            problems.append(f"row {number}: {key} has two different labels")
    return {key: grade for key, grade in found.items() if key not in contradicted}, problems


def labels_text(labels: Iterable[tuple[FaceKey, int]]) -> str:
    """The text of `labels.csv`, ordered by source, track and time."""
    names = {grade: word for word, grade in WORDS.items()}
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for key, grade in sorted(labels, key=lambda one: (one[0].source_id, one[0].track_id, one[0].pts_seconds)):
        writer.writerow([key.source_id, key.track_id, f"{key.pts_seconds:.6f}", names[grade]])
    return file.getvalue()
