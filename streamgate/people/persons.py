"""Merges the tracks of all committed sources into persons; each derivation starts from the beginning.

The result depends only on the committed files, which are read in the order of source ids and tracks. Therefore, it does
not depend on the number of jobs, the order of commits, or interruptions. Tracks that keep no face belong to no person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from streamgate.errors import ResultsError
from streamgate.people.ledger import Ledger, TrackKey
from streamgate.people.linkage import link
from streamgate.selection.template import is_sure
from streamgate.store import files
from streamgate.store.folder import RunFolder
from streamgate.store.identity import load_identity
from streamgate.tracks import Template


def find_people(out: Path, source_ids: Iterable[str], threshold: float, *, settle: bool) -> Ledger:
    """Assign every kept track of the committed sources to a person, and write the ledger.

    If the ledger is settled, tracks that already have a person keep it. With `settle`, the ledger is settled
    afterwards. `threshold` is the minimum similarity of two tracks of one person. Raises ResultsError and SinkError.
    """
    folder = RunFolder(out)
    ledger = Ledger.read(out)
    if not ledger.settled:
        ledger = Ledger(out)
    templates: list[Template | None] = []
    spans: dict[TrackKey, tuple[float, float]] = {}
    for source_id in sorted(set(source_ids)):
        known, _ = load_identity(out, source_id)
        found = _kept_tracks(folder, source_id)
        templates += [known.get(track_id) for _, track_id in found]
        spans |= found
    ledger.spans, ledger.unknown = spans, _without_template(ledger, spans, templates)
    _link_new(ledger, templates, threshold)
    ledger.settled = ledger.settled or settle
    with files.sink_errors(out):
        ledger.write()
    return ledger


def known_people(out: Path, source_ids: Iterable[str]) -> Ledger:
    """The ledger with the persons of the last derivation and all decisions since. Raises ResultsError."""
    folder = RunFolder(out)
    ledger = Ledger.read(out)
    ledger.spans = {track: span for one in sorted(set(source_ids)) for track, span in _kept_tracks(folder, one).items()}
    return ledger


def _kept_tracks(folder: RunFolder, source_id: str) -> dict[TrackKey, tuple[float, float]]:
    """First and last pts of the tracks of a committed source that keep a face, sorted by id."""
    found = {
        (source_id, int(track["track_id"])): (float(track["first_pts"]), float(track["last_pts"]))
        for track in folder.tracks(source_id)
        if track["kept"]
    }
    return dict(sorted(found.items()))


def _link_new(ledger: Ledger, templates: Sequence[Template | None], threshold: float) -> None:
    """Assign a group to every track without one; `templates` are in the order of the tracks."""
    tracks = list(ledger.spans)
    if all(track in ledger.groups for track in tracks):
        return
    size = next((len(one.vector) for one in templates if one is not None), 1)
    vectors = np.zeros((len(tracks), size), np.float32)
    offsets = np.zeros(len(tracks), np.float32)
    for index, template in enumerate(templates):
        if template is not None and is_sure(template):
            if len(template.vector) != size:
                raise ResultsError(
                    "the output folder has templates of several recognizers; choose another folder with -o"
                )
            vectors[index], offsets[index] = template.vector, template.offset
    ids = sorted({ledger.groups[track] for track in tracks if track in ledger.groups})
    number = {group: index for index, group in enumerate(ids)}
    sources = {source_id: index for index, source_id in enumerate(dict.fromkeys(source_id for source_id, _ in tracks))}
    owners = _owners(ids, ledger)
    spans = np.array([[sources[source_id], *span] for (source_id, _), span in ledger.spans.items()])
    groups = [number.get(ledger.groups.get(track, "")) for track in tracks]
    for track, index in zip(tracks, link(vectors, offsets, spans, groups, threshold, owners), strict=True):
        while index >= len(ids):
            ids.append(ledger.new_id())
        ledger.groups.setdefault(track, ids[index])


def _without_template(ledger: Ledger, tracks: Iterable[TrackKey], templates: Sequence[Template | None]) -> int:
    """Number of known persons without a template, if the folder has new tracks with a template; otherwise 0."""
    known, seen, new = set(), set(), False
    for track, template in zip(tracks, templates, strict=True):
        if track not in ledger.groups:
            new = new or template is not None
            continue
        person = ledger.person_of(track)
        known.add(person)
        if template is not None:
            seen.add(person)
    return len(known - seen) if new else 0


def _owners(ids: Sequence[str], ledger: Ledger) -> list[int]:
    """For each group, the index of the first group of the same person, as `link` expects."""
    first: dict[str, int] = {}
    return [first.setdefault(ledger.persons.get(group, group), index) for index, group in enumerate(ids)]
