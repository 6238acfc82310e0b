"""Converts records of faces.jsonl to rows with plain columns, which are the same in all tabular formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streamgate.measures import built_in_measures
from streamgate.tracks import CROP_NAMES

Kind = Literal["text", "int", "float", "bool", "texts"]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, the type of its values (which may be null), and their path in a record."""

    name: str
    kind: Kind
    path: tuple[str | int, ...]


FURTHER_CROPS = tuple(name for name in CROP_NAMES if name != "ffhq")
"""Pictures that a face may have in addition to `image`."""


def _plain(kind: Kind, *names: str) -> list[Column]:
    return [Column(name, kind, (name,)) for name in names]


def columns_of(record: Mapping[str, Any] | None = None) -> tuple[Column, ...]:
    """All columns in order. The documentation describes the pattern of their names, which must not change.

    Columns of measures from other packages follow those of the built-in measures. Their names are taken from `record`,
    which may be any record of the run.
    """
    points = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
    return (
        *_plain("text", "id", "source", "source_id"),
        *_plain("int", "track_id"),
        *_plain("text", "person_id", "person_name"),
        *_plain("int", "rank", "person_rank"),
        *_plain("text", "image", "name"),
        *_plain("int", "frame_index"),
        *_plain("float", "pts_seconds"),
        *_plain("bool", "pts_estimated"),
        *_plain("text", "captured_at"),
        *_plain("float", "quality", "quality_smoothed", "quality_context"),
        *_plain("text", "calibration_id"),
        Column("gate_passed", "bool", ("gate", "passed")),
        Column("gate_reasons", "texts", ("gate", "reasons")),
        *(Column(f"box_{side}", "float", ("box", index)) for index, side in enumerate(("x1", "y1", "x2", "y2"))),
        *(
            Column(f"{point}_{axis}", "float", ("landmarks", index, number))
            for index, point in enumerate(points)
            for number, axis in enumerate("xy")
        ),
        *_plain("float", "detection_score"),
        *(Column(f"pose_{angle}", "float", ("pose", angle)) for angle in ("yaw", "pitch", "roll")),
        *(
            Column(f"{name}_{part}", "text" if part == "status" else "float", ("measures", name, part))
            for name in _measures_in(record)
            for part in ("raw", "scalar", "status")
        ),
        *_plain("text", "pose_bin", "phash"),
        *_plain("bool", "still"),
        *_plain("float", "upscaled", "outside"),
        *(Column(f"image_{name}", "text", ("crops", name, "image")) for name in FURTHER_CROPS),
        *(Column(f"track_{key}", "float", ("track", key)) for key in ("first_pts", "last_pts")),
        *(Column(f"track_{key}", "int", ("track", key)) for key in ("frames_seen", "frames_scored")),
    )


def _measures_in(record: Mapping[str, Any] | None) -> list[str]:
    ours = [spec.name for spec in built_in_measures()]
    found = record.get("measures") if record is not None else None
    others = found.keys() - set(ours) if isinstance(found, Mapping) else set()
    return [*ours, *sorted(name for name in others if name.isidentifier())]


def row_of(record: Mapping[str, Any], columns: Iterable[Column]) -> Row:
    """The values of a valid record, by column name."""
    return {column.name: _value(record, column) for column in columns}


def texts_joined(row: Row, join: Callable[[list[str]], str] = " ".join) -> Row:
    """The row with each list joined into one text, for formats without lists."""
    return {name: join(value) if isinstance(value, list) else value for name, value in row.items()}


def _value(record: Mapping[str, Any], column: Column) -> Any:
    value: Any = record
    for step in column.path:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            value = None
        if value is None:
            return [] if column.kind == "texts" else None
    return float(value) if column.kind == "float" else value
