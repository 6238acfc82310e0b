"""Values of measures for the rows of a table: scored from pictures, looked up in a run, or read from columns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streamgate.compare.fullreference import FULL_REFERENCE
from streamgate.engine import Engine
from streamgate.errors import SourceError, StreamgateError, UsageError, display, one_line
from streamgate.faces import Measure, ScoredFace, Status
from streamgate.frames import Array
from streamgate.labels import COLUMNS, FaceKey, face_key
from streamgate.measures import MeasureSpec
from streamgate.parallel import in_order
from streamgate.store.folder import RunFolder
from streamgate.tables import Row, Table

QUALITY = "quality"
"""The fused quality, which can be compared like a measure."""
LOWER = ":lower"
"""If a column name ends in this suffix, lower values are better."""


Problems = dict[str, list[str]]
"""For each reason why values are missing, the labels of the rows without a value."""


def check_names(
    names: Sequence[str], table: Table, measures: Iterable[MeasureSpec], *, has_reference: bool
) -> None:
    """Raises UsageError for a name that is neither a measure nor a column of the table."""
    known = {*(spec.name for spec in measures), QUALITY, *FULL_REFERENCE}
    for name in names:
        column = name.removesuffix(LOWER)
        if column not in table.columns and name not in known:
            raise UsageError(
                f"{one_line(name, 80)!r} is neither a measure nor a column; measures are {', '.join(sorted(known))}; "
                f"{table.listed}"
            )
        if name in FULL_REFERENCE and name not in table.columns and not has_reference:
            raise UsageError(f"{name} needs reference pictures: give the name of their column with --reference")


def column_values(table: Table, name: str) -> Array:
    """The values of a column, NaN where there is no number; negated if `name` ends in `:lower`."""
    column = name.removesuffix(LOWER)
    values = np.array([_number(row[column]) for row in table.rows])
    return -values if name.endswith(LOWER) else values


def scored_values(
    table: Table,
    names: Sequence[str],
    engine: Engine,
    *,
    image: str,
    aligned: str | None,
    reference: str | None,
    workers: int,
    done: Callable[[int], None],
) -> tuple[dict[str, Array], Problems]:
    """Score the picture of each row, using the largest face in it.

    Returns the values of each measure and the reasons for missing values. The values are float (N,), one per row, with
    the sign chosen so that larger is better; missing values are NaN. If a picture cannot be read or has no face, the
    other rows are not affected.
    """
    specs = {spec.name: spec for spec in engine.config.measures.specs}
    found = {name: np.full(len(table.rows), np.nan) for name in names}
    problems: Problems = {}
    wants_face = any(name not in FULL_REFERENCE for name in names)
    most = engine.config.decoding.max_pixels

    def score(row: Row) -> tuple[ScoredFace | None, dict[str, float], str]:
        try:
            picture = _picture(table.path, row[image], most)
            against = {}
            if reference is not None and (wanted := [name for name in names if name in FULL_REFERENCE]):
                whole = _picture(table.path, row[reference], most)
                against = {name: FULL_REFERENCE[name](picture, whole) for name in wanted}
            faces = engine.score(picture, aligned=aligned) if wants_face else []
        except StreamgateError as error:
            return None, {}, str(error)
        return (faces[0] if faces else None), against, "no face was found" if wants_face and not faces else ""

    for number, (row, (face, against, problem)) in enumerate(in_order(score, table.rows, workers)):
        done(number + 1)
        if problem:
            # Remove the file name, so that a problem that many rows share is reported only once.
            problem = problem.removeprefix(f"{display(_path(table.path, row[image]))}: ")
            problems.setdefault(problem, []).append(row[image])
        for name in names:
            value: float | str | None = against.get(name)
            if value is None and face is not None:
                value = _value(specs.get(name), face.quality, face.measures.get(name), aligned)
            if isinstance(value, str):
                problems.setdefault(f"{name} {value}", []).append(row[image])
            elif value is not None:
                found[name][number] = value
    return found, problems


def recorded_values(table: Table, names: Sequence[str], folder: RunFolder) -> tuple[dict[str, Array], Problems]:
    """Look up the faces of the rows, identified by the columns of labels.csv or by `id`, in the results of a run.

    Returns the same as `scored_values`.
    """
    specs = {spec.name: spec for spec in folder.measures}
    found = {name: np.full(len(table.rows), np.nan) for name in names}
    problems: Problems = {}
    records = dict(_records(table, folder))
    by_id = "id" in table.columns and not set(COLUMNS[:3]) <= set(table.columns)
    for number, row in enumerate(table.rows):
        key = row["id"] if by_id else face_key(row)
        label = str(key) if key is not None else f"row {number + 1}"
        record = records.get(key) if key is not None else None
        if record is None:
            problems.setdefault("no such face in these results", []).append(label)
            continue
        for name in names:
            listed = record["measures"].get(name)
            measure = None if listed is None else Measure(listed["raw"], listed["scalar"], Status(listed["status"]))
            value = _value(specs.get(name), record["quality"], measure, None)
            if isinstance(value, str):
                unscored = measure is not None and measure.status is Status.NOT_SCORED
                hint = " in this run; a run with --set exhaustive=true scores every face" if unscored else ""
                problems.setdefault(f"{name} {value}{hint}", []).append(label)
            elif value is not None:
                found[name][number] = value
    return found, problems


def _records(table: Table, folder: RunFolder) -> Iterator[tuple[FaceKey | str, Mapping[str, Any]]]:
    if "id" in table.columns and not set(COLUMNS[:3]) <= set(table.columns):
        for record in folder.faces():
            yield record["id"], record
        return
    wanted = {row["source_id"] for row in table.rows}
    for source_id in (one for one in folder.source_ids if one in wanted):
        # Kept faces come last, so that their records take precedence.
        for records in (folder.candidates(source_id), folder.faces(source_id)):
            for record in records:
                yield FaceKey(source_id, record["track_id"], round(float(record["pts_seconds"]), 6)), record


def _value(
    spec: MeasureSpec | None, quality: float | None, measure: Measure | None, aligned: str | None
) -> float | str | None:
    """A value, or the reason why there is none."""
    if spec is None:  # quality
        return "needs a value of every measure in the measure set" if quality is None else float(quality)
    if measure is None:
        return "is not in use; add --set measures.NAME.use=true"
    if measure.raw is None:
        if measure.status is Status.NOT_SCORED and aligned is not None and spec.of_source:
            return "needs the source picture, but the row has only an aligned crop"
        return _WHY[measure.status]
    fixed = callable(spec.mapping) and measure.scalar is not None
    return float(measure.scalar) if fixed and measure.scalar is not None else spec.upward(measure.raw)


_WHY = {
    Status.NOT_SCORED: "was not scored",
    Status.NO_WEIGHTS: "has no weights; see `streamgate models list`",
    Status.UNCALIBRATED: "has no raw value",
    Status.ERROR: "failed",
    Status.OK: "has no raw value",
}


def _picture(table: Path, name: str, most: int) -> Array:
    from streamgate.sources.images import read_rgb

    if not name:
        raise SourceError("the row has no picture")
    path = _path(table, name)
    try:
        if not path.is_file():
            raise SourceError("no such file")
        return read_rgb(path, most)
    except SourceError as error:
        raise SourceError(f"{display(path)}: {error}") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{display(path)}: cannot be read ({one_line(str(error))})") from None


def _path(table: Path, name: str) -> Path:
    """The path of a picture, given relative to the table."""
    return Path(os.path.join(table.parent, name))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return np.nan
    return value if np.isfinite(value) else np.nan
