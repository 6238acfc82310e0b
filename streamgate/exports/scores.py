"""Scores of many pictures as a table: a row for each face, each picture without faces and each unreadable file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamgate.errors import UsageError, display
from streamgate.exports.formats import FORMULA, ROWS_A_GROUP, parquet_schema
from streamgate.exports.table import Column, Row, columns_of, row_of, texts_joined
from streamgate.exports.targets import new_file
from streamgate.store.jsonlines import dumps

FORMATS = (".jsonl", ".csv", ".parquet")
_PARTS = ("box", "landmarks", "detection_score", "pose", "measures", "quality", "gate")
_HEAD = (
    Column("image", "text", ("image",)),
    Column("face", "int", ("face",)),
    Column("faces", "int", ("faces",)),
    Column("error", "text", ("error",)),
)

Take = Callable[[Mapping[str, Any], str], None]
"""Called with the record of a picture, as `streamgate score` prints it, and with an error message or an empty text."""


@contextmanager
def score_file(path: Path, measures: Sequence[str], *, overwrite: bool) -> Iterator[Take]:
    """Write `path` atomically when the block ends without an error; its suffix determines the format.

    `measures` are the names of the measures in records. Raises UsageError if the suffix is unknown, the file exists or
    pyarrow is missing, and SinkError if the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{display(path)}: give a file name that ends in {', '.join(FORMATS)}")
    columns = [*_HEAD, *(one for one in columns_of({"measures": dict.fromkeys(measures)}) if one.path[0] in _PARTS)]
    schema = parquet_schema(columns) if path.suffix == ".parquet" else None
    with new_file(path, overwrite=overwrite, is_ours=lambda there: True) as file:
        if path.suffix == ".jsonl":
            yield lambda record, error: _written(file, record, error)
        elif path.suffix == ".csv":
            text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
            writer = csv.DictWriter(text, [column.name for column in columns], lineterminator="\n")
            writer.writeheader()
            yield lambda record, error: writer.writerows(
                _harmless(texts_joined(row)) for row in _rows(record, error, columns)
            )
            text.detach()
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            waiting: list[Row] = []
            with pq.ParquetWriter(file, schema, compression="zstd") as parquet:

                def take(record: Mapping[str, Any], error: str) -> None:
                    waiting.extend(_rows(record, error, columns))
                    if len(waiting) >= ROWS_A_GROUP:
                        parquet.write_table(pa.Table.from_pylist(waiting, schema=schema))
                        waiting.clear()

                yield take
                parquet.write_table(pa.Table.from_pylist(waiting, schema=schema))


def _written(file: Any, record: Mapping[str, Any], error: str) -> None:
    file.write(dumps({**record, **({"error": error} if error else {})}).encode() + b"\n")


def _rows(record: Mapping[str, Any], error: str, columns: Sequence[Column]) -> Iterator[Row]:
    faces = record["faces"]
    head = {"image": record["image"], "faces": len(faces), "error": error or None}
    for number, face in enumerate(faces, 1):
        yield row_of({**face, **head, "face": number}, columns)
    if not faces:
        yield row_of(head, columns)


def _harmless(row: Row) -> Row:
    """The row with an apostrophe before values that a spreadsheet would treat as a formula."""
    return {
        name: f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
        for name, value in row.items()
    }
