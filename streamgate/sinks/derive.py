"""What covers a whole run, made from its committed sources alone: faces.jsonl, persons.jsonl and summary.json.

Sources stand in the order of their ids, faces by (track, rank) inside, whatever the order in which sources
were committed; so an interrupted run can be derived again later, and the bytes are those of an undisturbed
one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from streamgate.errors import SinkError
from streamgate.people.faces import write_people
from streamgate.people.persons import find_people
from streamgate.people.templates import remove_templates
from streamgate.records import TOTALS, dumps, source_record, summary_record
from streamgate.sinks import files
from streamgate.sinks.base import RunInfo, SourceResult


def derive(
    out: Path,
    source_ids: Iterable[str],
    run: RunInfo,
    results: Iterable[SourceResult],
    timing: Mapping[str, float],
    *,
    complete: bool,
    keep_templates: bool = False,
) -> None:
    """Write OUT/faces.jsonl, OUT/persons.jsonl (where tracks become persons) and OUT/summary.json, each atomically.

    `source_ids` are the committed sources; of `results` only those count that were not committed (failed). Persons are
    settled when the run is `complete`; templates that were for its time only are then removed, unless
    `keep_templates`: whoever merges this folder with others needs them.
    Time is linear in the records, memory in the sources and kept faces. Raises SinkError.
    """
    committed = sorted(set(source_ids))
    persons = None
    if run.identity.wanted:
        assert run.identity.threshold is not None
        people = find_people(out, committed, run.identity.threshold, settle=complete)
        persons = write_people(out, committed, people)
    else:
        _join(out, committed)
    sources = [_read_source(out / source_id / "source.json") for source_id in committed]
    known = set(committed)
    sources += [source_record(result) for result in results if result.source.source_id not in known]
    sources.sort(key=lambda source: (source["source_id"], source["source"]))
    summary = summary_record(run, sources, timing, complete=complete, persons=persons)
    path = out / "summary.json"
    with files.sink_errors(path):
        files.write_text(path, dumps(summary, pretty=True) + "\n")
    if complete and run.identity.store == "session" and not keep_templates:
        remove_templates(out / ".streamgate")


def _join(out: Path, committed: Iterable[str]) -> None:
    """OUT/faces.jsonl of faces that are nobody's."""
    faces = out / "faces.jsonl"
    with files.sink_errors(faces), files.atomic_writer(faces) as target:
        for source_id in committed:
            with open(out / source_id / "faces.jsonl", "rb") as part:
                shutil.copyfileobj(part, target)


def _read_source(path: Path) -> dict[str, Any]:
    with files.sink_errors(path):
        data = path.read_bytes()
    try:
        record = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        record = None
    if not _is_source_record(record):
        raise SinkError(f"{path} is damaged; remove the folder {path.parent} and run its source again")
    return dict(record)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _is_source_record(record: Any) -> bool:
    """Whether a summary can be made of it: the file may have been written by anybody."""
    return (
        isinstance(record, dict)
        and all(isinstance(record.get(key), str) for key in ("source", "source_id", "status"))
        and all(type(record.get(key)) is int for key in TOTALS)
        and all(isinstance(record.get(key), dict) for key in ("rejected", "timing"))
        and all(type(count) is int for count in record["rejected"].values())
    )
