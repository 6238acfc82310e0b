"""Reads tables from users, in CSV or Parquet, as rows of text."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from streamgate.errors import SourceError, UsageError, display, one_line

Row = dict[str, str]
"""The text of each column; missing values are empty strings."""
MAX_BYTES = 256 << 20
MAX_ROWS = 1_000_000
_PARQUET = b"PAR1"


@dataclass(frozen=True, slots=True)
class Table:
    """The contents of a table, with the rows in the order of the file."""

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]

    def need(self, column: str, option: str) -> str:
        """Return `column` if the table has it, otherwise raise UsageError with a list of the existing columns."""
        if column not in self.columns:
            raise UsageError(f"{display(self.path)} has no column {one_line(column, 80)!r} ({option}); {self.listed}")
        return column

    @property
    def listed(self) -> str:
        """The columns of the table, as part of a message."""
        return f"its columns are {one_line(', '.join(self.columns))}"


def read_table(path: Path) -> Table:
    """Read a table with a header. The cells of a CSV file are separated by commas, semicolons or tabs.

    Raises SourceError if the file cannot be read or is not a table, UsageError if it is Parquet and pyarrow is missing.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SourceError(f"{display(path)}: no such file; check the path") from None
    except OSError as error:
        raise SourceError(f"{display(path)} cannot be read ({error.strerror or error})") from None
    if len(data) > MAX_BYTES:
        raise SourceError(f"{display(path)} is larger than {MAX_BYTES >> 20} MiB; split it into smaller tables")
    table = _parquet(path, data) if data.startswith(_PARQUET) else _csv(path, data)
    if not table.rows:
        raise SourceError(f"{display(path)} has a header but no rows" if table.columns else f"{display(path)} is empty")
    return table


def _csv(path: Path, data: bytes) -> Table:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{display(path)} is not UTF-8 text; save the table as UTF-8 CSV or as Parquet") from None
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        columns = tuple(cell.strip() for cell in next(lines, []))
        if len(set(columns)) != len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise SourceError(f"{display(path)} has two columns named {one_line(twice, 80)!r}; rename one of them")
        rows: list[Row] = []
        for cells in lines:
            if not any(cells):
                continue
            if len(cells) != len(columns):
                raise SourceError(
                    f"{display(path)}, line {lines.line_num}: {len(cells)} cells, but {len(columns)} columns"
                )
            if len(rows) == MAX_ROWS:
                raise SourceError(f"{display(path)} has more than {MAX_ROWS:,} rows; use a sample of them")
            rows.append(dict(zip(columns, (cell.strip() for cell in cells), strict=True)))
    except csv.Error as error:
        raise SourceError(f"{display(path)} is not valid CSV ({one_line(str(error))})") from None
    return Table(path, columns, rows)


def _parquet(path: Path, data: bytes) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError("reading Parquet needs pyarrow: pip install 'streamgate[data]'") from None
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        if file.metadata.num_rows > MAX_ROWS:
            raise SourceError(f"{display(path)} has more than {MAX_ROWS:,} rows; use a sample of them")
        found = file.read()
        columns = tuple(str(name) for name in found.column_names)
        cells = [["" if value is None else str(value) for value in column.to_pylist()] for column in found.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{display(path)} is not valid Parquet ({one_line(str(error))})") from None
    return Table(path, columns, [dict(zip(columns, values, strict=True)) for values in zip(*cells, strict=True)])
