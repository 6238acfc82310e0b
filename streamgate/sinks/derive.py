"""What covers a whole run, made from its committed sources alone: faces.jsonl, persons.jsonl and summary.json.

Sources stand in the order of their ids, faces by (track, rank) inside, whatever the order in which sources
were committed; so an interrupted run can be derived again later, and the bytes are those of an undisturbed
one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from streamgate.people.faces import keep_of, write_people
from streamgate.people.persons import find_people
from streamgate.sinks.committed import read_source
from streamgate.store import files
from streamgate.store.identity import remove_templates
from streamgate.store.jsonlines import dumps
from streamgate.store.records import source_record, summary_record
from streamgate.store.run import RunInfo, SourceResult


def derive(
    out: Path,
    source_ids: Iterable[str],
    run: RunInfo,
    results: Iterable[SourceResult],
    timing: Mapping[str, float],
    *,
    complete: bool,
    keep_templates: bool = False,
) -> int:
    """Write OUT/faces.jsonl, OUT/persons.jsonl (where tracks become persons) and OUT/summary.json, each atomically.

    `source_ids` are the committed sources; of `results` only those count that were not committed (failed). Persons are
    settled when the run is `complete`; templates that were for its time only are then removed, unless
    `keep_templates`: whoever merges this folder with others needs them.
    Returns how many persons from before could not be compared with new tracks, since their templates are gone.
    Time is linear in the records, memory in the sources and kept faces. Raises SinkError.
    """
    committed = sorted(set(source_ids))
    persons, unknown = None, 0
    if run.identity.wanted:
        assert run.identity.threshold is not None
        people = find_people(out, committed, run.identity.threshold, settle=complete)
        unknown = people.unknown
        persons = write_people(out, committed, people, keep_of(run.config))
    else:
        _join(out, committed)
    sources = [read_source(out / source_id / "source.json") for source_id in committed]
    known = set(committed)
    sources += [source_record(result) for result in results if result.source.source_id not in known]
    sources.sort(key=lambda source: (source["source_id"], source["source"]))
    summary = summary_record(run, sources, timing, complete=complete, persons=persons)
    path = out / "summary.json"
    with files.sink_errors(path):
        files.write_text(path, dumps(summary, pretty=True) + "\n")
    if complete and run.identity.store == "session" and not keep_templates:
        remove_templates(out / ".streamgate")
    return unknown


def _join(out: Path, committed: Iterable[str]) -> None:
    """OUT/faces.jsonl of faces that are nobody's."""
    faces = out / "faces.jsonl"
    with files.sink_errors(faces), files.atomic_writer(faces) as target:
        for source_id in committed:
            with open(out / source_id / "faces.jsonl", "rb") as part:
                shutil.copyfileobj(part, target)
