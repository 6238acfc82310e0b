"""The persons of an output folder: the groups of tracks that were found, and the user's decisions since then.

Two files in OUT/.streamgate store them. `persons.json` contains the group of each track and is rewritten by each
derivation. `decisions.jsonl` contains the user's decisions: which groups are one person, which tracks belong to another
person, and the names of persons. Each decision appends a line to this file; a derivation only reads it.

Until a run is complete, its groups are provisional: each derivation finds all groups again, so that a resumed run has
the same result as an uninterrupted run. When the run is complete, the groups are settled: a settled group keeps its id
and its tracks. The groups are also settled before the first decision, because decisions refer to groups that the user
has seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamgate.errors import ResultsError, UsageError, display
from streamgate.store import files, jsonlines, schemas
from streamgate.store.jsonlines import SCHEMA, Record, dumps
from streamgate.store.layout import STATE_DIR

GROUPS_NAME, DECISIONS_NAME = "persons.json", "decisions.jsonl"
MAX_NAME = 200

TrackKey = tuple[str, int]
"""Source id and track id."""

_TRACK = re.compile(r"(?:track_)?([0-9]{1,9})")
_ID = re.compile(r"p([0-9]{4,9})")


@dataclass(slots=True)
class Ledger:
    """The persons of one output folder.

    Attributes:
        out: the folder.
        settled: whether existing groups are fixed, so that only new tracks are assigned to groups.
        groups: track -> id of its group, which was found by a derivation or set by a decision.
        persons: group -> id of its person; a group that is missing here is a person by itself.
        names: person -> name that the user gave.
        last: the highest number that was ever used in an id.
        spans: first and last pts in seconds of the tracks that keep faces, by source and track; empty until
            `people.persons` has read them.
        unknown: number of earlier persons who could not be compared with new tracks, because their embeddings were
            removed.
    """

    out: Path
    settled: bool = False
    groups: dict[TrackKey, str] = field(default_factory=dict)
    persons: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    last: int = 0
    spans: Mapping[TrackKey, tuple[float, float]] = field(default_factory=dict)
    unknown: int = 0

    @classmethod
    def read(cls, out: Path) -> Ledger:
        """Read the ledger; an empty one if the files do not exist. Raises ResultsError for damaged files."""
        ledger = cls(out)
        stored = _read_groups(out)
        if stored is not None:
            try:
                ledger.settled = stored["settled"]
                for source_id, tracks in stored["tracks"].items():
                    ledger.groups.update(((source_id, int(track)), _checked(group)) for track, group in tracks.items())
            except ValueError as error:
                raise _damaged(out, GROUPS_NAME) from error
        ledger._count(ledger.groups.values())
        for decision in _read_decisions(out):
            try:
                ledger._apply(decision)
            except (KeyError, TypeError, ValueError) as error:
                raise _damaged(out, DECISIONS_NAME) from error
        return ledger

    def write(self) -> None:
        """Write the groups atomically. Raises OSError."""
        by_source: dict[str, dict[str, str]] = {}
        for (source_id, track_id), group in sorted(self.groups.items()):
            by_source.setdefault(source_id, {})[str(track_id)] = group
        whole = {"schema": SCHEMA, "settled": self.settled, "tracks": by_source}
        files.write_text(self.out, f"{STATE_DIR}/{GROUPS_NAME}", dumps(whole) + "\n")

    def new_id(self) -> str:
        """An id that was never used before."""
        self.last += 1
        return f"p{self.last:04d}"

    def person_of(self, track: TrackKey) -> str | None:
        """The person that a track belongs to; None for a track without a group."""
        group = self.groups.get(track)
        return None if group is None else self.persons.get(group, group)

    def tracks_of(self, person: str) -> list[TrackKey]:
        """The tracks of a person, sorted; empty if no person has this id."""
        return sorted(track for track in self.groups if self.person_of(track) == person)

    def find(self, text: str) -> str:
        """The id of the person that `text` refers to by id or by name; names are case-insensitive.

        Raises UsageError if there is no such person, or if several persons have the name.
        """
        if self.tracks_of(text):
            return text
        wanted = text.strip().casefold()
        named = sorted(person for person, name in self.names.items() if name.casefold() == wanted)
        named = [person for person in named if self.tracks_of(person)]
        if len(named) > 1:
            raise UsageError(f"{text!r} is the name of {', '.join(named)}; use one of these ids")
        if named:
            return named[0]
        into = self.persons.get(text)
        was_merged = into is not None and into != text
        hint = f"it was merged into {into}" if was_merged else "`streamgate people OUT` lists all persons"
        raise UsageError(f"there is no person {text!r}; {hint}")

    def merged_into(self, person: str) -> list[str]:
        """Ids of the persons that decisions merged into `person`, sorted."""
        return sorted(group for group, into in self.persons.items() if into == person and group != person)

    def merge(self, into: str, others: Iterable[str]) -> None:
        """Permanently merge persons, given by id or name (see `find`); the result has the id and name of `into`.

        Raises UsageError and OSError.
        """
        into = self.find(into)
        gone = [person for person in dict.fromkeys(map(self.find, others)) if person != into]
        if not gone:
            raise UsageError(f"merge requires at least two different persons, but only {into} was given")
        self._decide({"op": "merge", "into": into, "persons": gone})

    def split(self, person: str, tracks: Iterable[TrackKey]) -> str:
        """Permanently move some tracks of a person to a new person; returns its id. Raises UsageError and OSError."""
        person = self.find(person)
        own = set(self.tracks_of(person))
        moved = sorted(set(tracks))
        for source_id, track_id in moved:
            if (source_id, track_id) not in own:
                raise UsageError(
                    f"{source_id}/{track_id} is not a track of {person}; `streamgate people OUT` lists its tracks"
                )
        if not moved or len(moved) == len(own):
            raise UsageError(f"split requires some, but not all, of the {len(own)} track(s) of {person}")
        new = f"p{self.last + 1:04d}"
        self._decide({"op": "split", "from": person, "to": new, "tracks": [list(track) for track in moved]})
        return new

    def name(self, person: str, name: str) -> None:
        """Set a person's name; an empty `name` removes the current one. Raises UsageError and OSError."""
        person = self.find(person)
        name = name.strip()
        if len(name) > MAX_NAME or not all(sign.isprintable() for sign in name):
            raise UsageError(f"the name must consist of at most {MAX_NAME} printable characters")
        self._decide({"op": "name", "person": person, "name": name})

    def _decide(self, decision: Mapping[str, Any]) -> None:
        """Record a decision, then apply it."""
        if not self.settled:
            self.settled = True
            self.write()
        files.append_line(self.out, f"{STATE_DIR}/{DECISIONS_NAME}", dumps({"schema": SCHEMA, **decision}))
        self._apply(decision)

    def _apply(self, decision: Mapping[str, Any]) -> None:
        if decision["op"] == "merge":
            into = _checked(decision["into"])
            gone = {_checked(person) for person in decision["persons"]}
            for group in {*self.groups.values(), *self.persons, *gone}:
                if self.persons.get(group, group) in gone:
                    self.persons[group] = into
            named = [self.names.pop(person) for person in sorted(gone) if person in self.names]
            if named and into not in self.names:
                self.names[into] = named[0]
        elif decision["op"] == "split":
            new = _checked(decision["to"])
            for source_id, track_id in decision["tracks"]:
                self.groups[(str(source_id), int(track_id))] = new
            self.persons.pop(new, None)
            self._count([new])
        elif decision["op"] == "name":
            person, name = _checked(decision["person"]), decision["name"]
            if not isinstance(name, str):
                raise TypeError("a name is a text")
            self.names.pop(person, None)
            if name:
                self.names[person] = name
        else:
            raise ValueError("an unknown decision")

    def _count(self, ids: Iterable[str]) -> None:
        self.last = max([self.last, *(int(one[1:]) for one in set(ids))])


def remove_ledger(out: Path) -> None:
    """Remove the groups and decisions of results that are being removed. Raises OSError."""
    files.remove_listed(out, [f"{STATE_DIR}/{name}" for name in (DECISIONS_NAME, GROUPS_NAME)])


def has_people(out: Path) -> bool:
    """Whether the tracks of an output folder were merged into persons."""
    return (out / STATE_DIR / GROUPS_NAME).is_file()


def track_of(text: str) -> TrackKey:
    """Parse a track, such as `SOURCE_ID/3`, `SOURCE_ID/track_0003` or `SOURCE_ID/track_0003/1.png`. Raises UsageError.
    """
    parts = text.strip("/").split("/")
    found = _TRACK.fullmatch(parts[1]) if len(parts) in (2, 3) else None
    if found is None or not parts[0]:
        raise UsageError(f"{text!r} is not a track; use SOURCE_ID/NUMBER as listed by `streamgate people OUT`")
    return parts[0], int(found[1])


def _checked(person: Any) -> str:
    if not isinstance(person, str) or not _ID.fullmatch(person):
        raise ValueError(f"{person!r} is not a person id")
    return person


def _read_groups(out: Path) -> Record | None:
    try:
        return jsonlines.read_object(out, f"{STATE_DIR}/{GROUPS_NAME}", schemas.GROUPS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(out, GROUPS_NAME, f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise _damaged(out, GROUPS_NAME) from error


def _read_decisions(out: Path) -> list[Record]:
    try:
        found = jsonlines.read_log(out, f"{STATE_DIR}/{DECISIONS_NAME}")
    except OSError as error:
        raise _unreadable(out, DECISIONS_NAME, f"cannot be read ({error.strerror or error})") from error
    if any(decision.get("schema") != SCHEMA for decision in found):
        raise _damaged(out, DECISIONS_NAME)
    return found


def _damaged(out: Path, name: str) -> ResultsError:
    return _unreadable(out, name, "is damaged or was written by another version")


def _unreadable(out: Path, name: str, what: str) -> ResultsError:
    lost = "decisions" if name == DECISIONS_NAME else "person ids"
    return ResultsError(
        f"{display(out / STATE_DIR / name)} {what}; restore it from a backup, or remove it and lose the {lost} in it"
    )
