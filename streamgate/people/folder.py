"""The persons of a finished output folder, to look at and to correct."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import TracebackType
from typing import Self

from streamgate.errors import SinkError, UsageError
from streamgate.people.faces import keep_of, read_people, write_people
from streamgate.people.ledger import GROUPS_NAME, Ledger, TrackKey
from streamgate.people.persons import known_people
from streamgate.store import files
from streamgate.store.jsonlines import Record, dumps
from streamgate.store.manifest import Manifest

_TRACK = re.compile(r"(?:track_)?([0-9]{1,9})")


class PeopleFolder:
    """Decisions about the persons of `out`; a context manager that keeps runs out of the folder meanwhile.

    Each decision is written down durably first, then faces.jsonl, persons.jsonl and the number of persons in
    summary.json are made anew; what a crash leaves out, the next decision or derivation makes up for.

    Raises UsageError where there are no persons, and for decisions that cannot be followed; SinkError.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._house = out / ".streamgate"
        self._lock = files.Lock(self._house / "lock")
        self._manifest = Manifest(self._house)

    def __enter__(self) -> Self:
        _need_people(self._out)
        self._lock.acquire()
        try:
            # What cannot be read refuses the decision before it is written down.
            self._manifest = Manifest.read(self._house)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def merge(self, into: str, others: list[str]) -> None:
        """Persons that are one: they keep the id and name of `into`."""
        with files.sink_errors(self._house):
            Ledger.read(self._house).merge(into, others)
        self._derive()

    def split(self, person: str, tracks: list[str]) -> str:
        """Tracks (`SOURCE_ID/NUMBER`, or a face's image) of a person that are somebody else; returns the new id."""
        with files.sink_errors(self._house):
            new = Ledger.read(self._house).split(person, [track_of(text) for text in tracks])
        self._derive()
        return new

    def name(self, person: str, name: str) -> None:
        """What a person is called."""
        with files.sink_errors(self._house):
            Ledger.read(self._house).name(person, name)
        self._derive()

    def _derive(self) -> None:
        committed = self._manifest.present()
        keep = keep_of(self._manifest.run.get("config", {}))
        persons = write_people(self._out, committed, known_people(self._out, committed), keep)
        _count_in_summary(self._out / "summary.json", persons)


def list_people(out: Path) -> list[Record]:
    """The lines of persons.jsonl as they follow from all decisions so far. Raises UsageError, SinkError."""
    _need_people(out)
    manifest = Manifest.read(out / ".streamgate")
    committed = manifest.present()
    return read_people(out, committed, known_people(out, committed), keep_of(manifest.run.get("config", {})))


def track_of(text: str) -> TrackKey:
    """The track that `SOURCE_ID/3`, `SOURCE_ID/track_0003` or `SOURCE_ID/track_0003/1.png` names. Raises UsageError."""
    parts = text.strip("/").split("/")
    found = _TRACK.fullmatch(parts[1]) if len(parts) in (2, 3) else None
    if found is None or not parts[0]:
        raise UsageError(f"{text!r} names no track; write SOURCE_ID/NUMBER as `streamgate people OUT` lists them")
    return parts[0], int(found[1])


def _need_people(out: Path) -> None:
    if not (out / ".streamgate" / "manifest.json").is_file():
        raise UsageError(f"{out} holds no results of `streamgate run`; name its output folder")
    if not (out / ".streamgate" / GROUPS_NAME).is_file():
        raise UsageError(
            f"{out}: its tracks were not merged into persons; run again with --overwrite and identity.store=session or "
            "disk, and a recognizer whose identity threshold is known (`streamgate models list`)"
        )


def _count_in_summary(path: Path, persons: int) -> None:
    with files.sink_errors(path):
        try:
            summary = json.loads(path.read_bytes())
            summary["totals"]["persons"] = persons
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SinkError(f"{path} is damaged; the next run with --resume writes it anew") from error
        files.write_text(path, dumps(summary, pretty=True) + "\n")
