"""Derives the files that cover a whole run from its committed sources: faces.jsonl, persons.jsonl and summary.json.

Sources are sorted by id and their faces by (track, rank), regardless of the order in which the sources were committed.
Therefore, if an interrupted run is resumed, its files are identical, byte for byte, to those of an uninterrupted run,
except for the timing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from streamgate.people.faces import keep_of, write_people
from streamgate.people.persons import find_people
from streamgate.store import files
from streamgate.store.folder import RunFolder
from streamgate.store.identity import remove_identity
from streamgate.store.jsonlines import dumps
from streamgate.store.layout import FACES, SUMMARY
from streamgate.store.run import RunInfo, SourceResult, source_record, summary_record


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
    """Write OUT/faces.jsonl, OUT/persons.jsonl (if the run finds persons) and OUT/summary.json, each atomically.

    `source_ids` are the ids of the committed sources; of `results`, only those of other (failed) sources are used. When
    the run is `complete`, persons become final, and with identity.store=session the templates are removed, unless
    `keep_templates` is set because this folder is to be merged with others.
    Returns the number of earlier persons who could not be compared with new tracks because their templates were
    removed.
    Time is linear in the number of records; memory is linear in the number of sources and kept faces.
    Raises ResultsError, SinkError.
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
    folder = RunFolder(out)
    sources = [folder.source(source_id) for source_id in committed]
    known = set(committed)
    sources += [source_record(result) for result in results if result.source.source_id not in known]
    sources.sort(key=lambda source: (source["source_id"], source["source"]))
    summary = summary_record(run, sources, timing, complete=complete, persons=persons)
    with files.sink_errors(out):
        files.write_text(out, SUMMARY, dumps(summary, pretty=True) + "\n")
    if complete and run.identity.store == "session" and not keep_templates:
        remove_identity(out)
    return unknown


def _join(out: Path, committed: Iterable[str]) -> None:
    """Write OUT/faces.jsonl for a run without persons."""
    with files.sink_errors(out), files.atomic_writer(out, FACES) as target:
        for source_id in committed:
            with files.open_below(out, f"{source_id}/{FACES}") as part:
                shutil.copyfileobj(part, target)
