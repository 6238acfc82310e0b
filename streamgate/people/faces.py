"""The kept faces of a run by person: faces.jsonl with who it is, and persons.jsonl.

Both follow from the committed sources and the ledger alone, so a decision by hand only writes them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamgate.people.persons import People, read_lines
from streamgate.records import SCHEMA, Record, dumps
from streamgate.sinks import files

FaceKey = tuple[str, int, int]
"""Source id, track id, rank."""


@dataclass(frozen=True, slots=True)
class PersonFace:
    """What ordering the faces of a person takes; qualities are 0..100, None for a fallback without one."""

    key: FaceKey
    person_id: str
    quality_smoothed: float | None
    quality: float | None
    pts_seconds: float
    image: str | None

    @property
    def order(self) -> tuple[float, float, str, float, int]:
        """Best first; the rest only settles ties."""
        return (-(self.quality_smoothed or 0.0), -(self.quality or 0.0), self.key[0], self.pts_seconds, self.key[1])


def write_people(out: Path, source_ids: Iterable[str], people: People) -> int:
    """Write OUT/faces.jsonl and OUT/persons.jsonl, each atomically; returns the number of persons. Raises SinkError.

    Memory is linear in the kept faces, a few figures each.
    """
    committed = sorted(set(source_ids))
    by_person = _by_person(out, committed, people)
    places = {face.key: place for faces in by_person.values() for place, face in enumerate(faces, 1)}
    path = out / "faces.jsonl"
    with files.sink_errors(path), files.atomic_writer(path) as target:
        for source_id in committed:
            for record in read_lines(out / source_id / "faces.jsonl"):
                record["person_id"] = people.person_of(source_id, record["track_id"])
                record["person_rank"] = places.get((source_id, record["track_id"], record["rank"]))
                target.write(dumps(record).encode() + b"\n")
    records = list(person_records(people, by_person))
    path = out / "persons.jsonl"
    with files.sink_errors(path):
        files.write_text(path, "".join(dumps(record) + "\n" for record in records))
    return len(records)


def read_people(out: Path, source_ids: Iterable[str], people: People) -> list[Record]:
    """What `write_people` would write into persons.jsonl. Raises SinkError."""
    return list(person_records(people, _by_person(out, sorted(set(source_ids)), people)))


def person_records(people: People, faces: dict[str, list[PersonFace]]) -> Iterator[Record]:
    """The lines of persons.jsonl, by id; `faces` are each person's, best first. Shape, in this order:

        schema, person_id, name | null, merged [person_id] (into this one, by hand), sources, tracks, faces (in
        faces.jsonl), seconds (of all tracks), image (of the best face) | null, members [{source_id, track_id,
        first_pts, last_pts, faces}]
    """
    members: dict[str, list[Record]] = {}
    counts: dict[tuple[str, int], int] = {}
    for kept in faces.values():
        for face in kept:
            counts[face.key[:2]] = counts.get(face.key[:2], 0) + 1
    for track in people.tracks:
        person = people.person_of(*track.key)
        if person is not None:
            members.setdefault(person, []).append(
                {
                    "source_id": track.source_id,
                    "track_id": track.track_id,
                    "first_pts": round(track.first_pts, 6),
                    "last_pts": round(track.last_pts, 6),
                    "faces": counts.get(track.key, 0),
                }
            )
    for person, tracks in sorted(members.items(), key=lambda item: int(item[0][1:])):
        kept = faces.get(person, [])
        yield {
            "schema": SCHEMA,
            "person_id": person,
            "name": people.ledger.names.get(person),
            "merged": people.ledger.merged_into(person),
            "sources": len({track["source_id"] for track in tracks}),
            "tracks": len(tracks),
            "faces": len(kept),
            "seconds": round(sum(track["last_pts"] - track["first_pts"] for track in tracks), 6),
            "image": kept[0].image if kept else None,
            "members": tracks,
        }


def _by_person(out: Path, committed: Iterable[str], people: People) -> dict[str, list[PersonFace]]:
    """The listed faces of each person, best first."""
    found: dict[str, list[PersonFace]] = {}
    for source_id in committed:
        for face in _faces(out, source_id, people):
            found.setdefault(face.person_id, []).append(face)
    for faces in found.values():
        faces.sort(key=lambda face: face.order)
    return found


def _faces(out: Path, source_id: str, people: People) -> Iterator[PersonFace]:
    for record in read_lines(out / source_id / "faces.jsonl"):
        person = people.person_of(source_id, record["track_id"])
        if person is not None:
            yield PersonFace(
                (source_id, record["track_id"], record["rank"]),
                person,
                record["quality_smoothed"],
                record["quality"],
                record["pts_seconds"],
                record["image"],
            )

