"""The kept faces of a run by person: faces.jsonl with person ids, and persons.jsonl.

Both files are derived from the committed sources and the ledger, so a manual decision changes no other results. If
`keep.per` is "person", only the best faces of each person, among all tracks of the person, are listed. The pictures of
the other faces are not removed, because these faces may be listed after a later decision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from streamgate.config_sections import KeepConfig
from streamgate.people.ledger import Ledger
from streamgate.selection.duplicates import Appearance, are_duplicates
from streamgate.store import files
from streamgate.store.folder import RunFolder
from streamgate.store.identity import load_identity
from streamgate.store.jsonlines import SCHEMA, Record, dumps
from streamgate.store.layout import FACES, PERSONS

FaceKey = tuple[str, int, int]
"""Source id, track id, rank."""


@dataclass(frozen=True, slots=True)
class PersonFace:
    """A kept face with the values by which the faces of a person are sorted.

    Qualities are 0..100, or None for some faces that were kept as a fallback.
    """

    key: FaceKey
    person_id: str
    quality_smoothed: float | None
    quality: float | None
    pts_seconds: float
    image: str | None
    pose_bin: str | None
    appearance: Appearance

    @property
    def order(self) -> tuple[float, float, str, float, int]:
        """Sort key that puts the best faces first; its later parts only break ties."""
        return (-(self.quality_smoothed or 0.0), -(self.quality or 0.0), self.key[0], self.pts_seconds, self.key[1])


def keep_of(config: Mapping[str, Any]) -> KeepConfig | None:
    """The `keep` table of a run's configuration as stored in records; None if it is missing or invalid."""
    try:
        return KeepConfig.model_validate(config["keep"])
    except (KeyError, TypeError, ValidationError):
        return None


def write_people(out: Path, source_ids: Iterable[str], people: Ledger, keep: KeepConfig | None = None) -> int:
    """Write OUT/faces.jsonl and OUT/persons.jsonl, each atomically; returns the number of persons.

    Raises ResultsError and SinkError.

    `keep` limits how many faces of a person are listed; without it, all faces are listed. Memory is linear in the
    number of kept faces: a few values per face, and its embedding if the faces of a person are compared.
    """
    committed = sorted(set(source_ids))
    by_person = _by_person(out, committed, people, keep)
    indexes = {face.key: index for faces in by_person.values() for index, face in enumerate(faces, 1)}
    folder = RunFolder(out)
    with files.sink_errors(out), files.atomic_writer(out, FACES) as target:
        for source_id in committed:
            for record in folder.faces(source_id):
                record["person_id"] = people.person_of((source_id, record["track_id"]))
                record["person_rank"] = indexes.get((source_id, record["track_id"], record["rank"]))
                if record["person_rank"] is not None or record["person_id"] is None:
                    target.write(dumps(record).encode() + b"\n")
    records = list(person_records(people, by_person))
    with files.sink_errors(out):
        files.write_text(out, PERSONS, "".join(dumps(record) + "\n" for record in records))
    return len(records)


def read_people(out: Path, source_ids: Iterable[str], people: Ledger, keep: KeepConfig | None = None) -> list[Record]:
    """The records that `write_people` would write to persons.jsonl. Raises ResultsError."""
    return list(person_records(people, _by_person(out, sorted(set(source_ids)), people, keep)))


def person_records(people: Ledger, faces: dict[str, list[PersonFace]]) -> Iterator[Record]:
    """The records of persons.jsonl, sorted by id; `faces` are the listed faces of each person, best first.

    The keys are, in this order:

        schema, person_id, name | null, merged [person_id] (merged into this person by the user), sources, tracks,
        faces (number in faces.jsonl), seconds (of all tracks), image (of the best face) | null, members [{source_id,
        track_id, first_pts, last_pts, faces}]
    """
    members: dict[str, list[Record]] = {}
    counts: dict[tuple[str, int], int] = {}
    for kept in faces.values():
        for face in kept:
            counts[face.key[:2]] = counts.get(face.key[:2], 0) + 1
    for track, (first_pts, last_pts) in people.spans.items():
        person = people.person_of(track)
        if person is not None:
            members.setdefault(person, []).append(
                {
                    "source_id": track[0],
                    "track_id": track[1],
                    "first_pts": round(first_pts, 6),
                    "last_pts": round(last_pts, 6),
                    "faces": counts.get(track, 0),
                }
            )
    for person, tracks in sorted(members.items(), key=lambda item: int(item[0][1:])):
        kept = faces.get(person, [])
        yield {
            "schema": SCHEMA,
            "person_id": person,
            "name": people.names.get(person),
            "merged": people.merged_into(person),
            "sources": len({track["source_id"] for track in tracks}),
            "tracks": len(tracks),
            "faces": len(kept),
            "seconds": round(sum(track["last_pts"] - track["first_pts"] for track in tracks), 6),
            "image": kept[0].image if kept else None,
            "members": tracks,
        }


def _by_person(
    out: Path, committed: Iterable[str], people: Ledger, keep: KeepConfig | None
) -> dict[str, list[PersonFace]]:
    """The listed faces of each person, best first."""
    compared = keep is not None and keep.per == "person"
    folder = RunFolder(out)
    found: dict[str, list[PersonFace]] = {}
    for source_id in committed:
        for face in _faces(folder, source_id, people, compared=compared):
            found.setdefault(face.person_id, []).append(face)
    for person, faces in found.items():
        faces.sort(key=lambda face: face.order)
        if keep is not None and compared:
            found[person] = _best(faces, keep)
    return found


def _best(faces: Iterable[PersonFace], keep: KeepConfig) -> list[PersonFace]:
    """The best `keep.top_k` faces of each pose bin, without duplicates.

    The minimum time between the faces of a track is not checked here, because the run has already applied it.
    """
    chosen: list[PersonFace] = []
    for face in faces:
        beside = sum(other.pose_bin == face.pose_bin for other in chosen)
        if beside < keep.top_k and not any(are_duplicates(face.appearance, other.appearance, keep) for other in chosen):
            chosen.append(face)
    return chosen


def _faces(folder: RunFolder, source_id: str, people: Ledger, *, compared: bool) -> Iterator[PersonFace]:
    """The kept faces of a source that belong to a person, with their embeddings if `compared` is true."""
    _, embeddings = load_identity(folder.out, source_id) if compared else ({}, {})
    for record in folder.faces(source_id):
        person = people.person_of((source_id, record["track_id"]))
        if person is None:
            continue
        phash = record["phash"]
        yield PersonFace(
            (source_id, record["track_id"], record["rank"]),
            person,
            record["quality_smoothed"],
            record["quality"],
            record["pts_seconds"],
            record["image"],
            record["pose_bin"],
            Appearance(
                None if phash is None else int(phash, 16),
                embeddings.get((record["track_id"], record["rank"])),
                math.dist(*record["landmarks"][:2]),
            ),
        )
