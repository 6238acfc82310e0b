"""Reading back how a committed source went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from streamgate.errors import SinkError
from streamgate.store import files
from streamgate.store.run import TOTALS, SourceInfo, SourceResult


def read_source(path: Path) -> dict[str, Any]:
    """The record in a source.json. Raises SinkError for one that is missing or that no summary can be made of."""
    with files.sink_errors(path):
        data = path.read_bytes()
    try:
        record = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        record = None
    if not is_source_record(record):
        raise SinkError(f"{path} is damaged; remove the folder {path.parent} and run its source again")
    return dict(record)


def committed_result(out: Path, source_id: str) -> SourceResult | None:
    """The result of a source under its final name in `out`; None when there is none that can be read."""
    try:
        record = read_source(out / source_id / "source.json")
    except SinkError:
        return None
    source = SourceInfo(record["source"], record["source_id"])
    known = {name: record[name] for name in SourceResult.__slots__ if name in record and name != "source"}
    return SourceResult(source, **known)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def is_source_record(record: Any) -> bool:
    """Whether a summary can be made of it: the file may have been written by anybody."""
    return (
        isinstance(record, dict)
        and all(isinstance(record.get(key), str) for key in ("source", "source_id", "status"))
        and all(type(record.get(key)) is int for key in TOTALS)
        and all(isinstance(record.get(key), dict) for key in ("rejected", "timing"))
        and all(type(count) is int for count in record["rejected"].values())
    )
