"""Lists and corrects the persons of a finished output folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamgate.errors import UsageError, display
from streamgate.people.faces import keep_of, read_people, write_people
from streamgate.people.ledger import Ledger, has_people
from streamgate.people.persons import known_people
from streamgate.store import files
from streamgate.store.folder import RunFolder
from streamgate.store.jsonlines import Record, dumps
from streamgate.store.layout import SUMMARY
from streamgate.store.lock import Lock


@contextmanager
def correcting(out: Path) -> Iterator[Ledger]:
    """The ledger of `out` for recording decisions; until the block ends, no run can use the folder.

    A decision is durable when the ledger's method returns. When the block ends, faces.jsonl, persons.jsonl and the
    number of persons in summary.json are updated; after a crash, the next decision or run updates them.

    Raises UsageError if the folder has no persons or a decision is invalid, ResultsError if the folder's files are
    damaged, and SinkError if these files cannot be written.
    """
    folder = _with_people(out)
    with Lock(out):
        # The folder is read again under the lock; if that fails, no decision is recorded.
        folder = RunFolder(out)
        keep = keep_of(folder.manifest.run.get("config", {}))
        known_people(out, folder.source_ids)
        ledger = Ledger.read(out)
        with files.sink_errors(out):
            yield ledger
        persons = write_people(out, folder.source_ids, known_people(out, folder.source_ids), keep)
        _count_in_summary(folder, persons)


def list_people(out: Path) -> list[Record]:
    """The records of persons.jsonl according to all decisions so far. Raises UsageError and ResultsError."""
    folder = _with_people(out)
    keep = keep_of(folder.manifest.run.get("config", {}))
    return read_people(out, folder.source_ids, known_people(out, folder.source_ids), keep)


def _with_people(out: Path) -> RunFolder:
    folder = RunFolder(out)
    if folder.manifest and not has_people(out):
        raise UsageError(
            f"{display(out)}: its tracks were not merged into persons; run again with --overwrite and --set "
            "identity.store=session or disk, and with a recognizer that has an identity threshold "
            "(see `streamgate models list`)"
        )
    return folder


def _count_in_summary(folder: RunFolder, persons: int) -> None:
    if not folder.has(SUMMARY):
        return
    summary = folder.summary
    summary["totals"]["persons"] = persons
    with files.sink_errors(folder.out):
        files.write_text(folder.out, SUMMARY, dumps(summary, pretty=True) + "\n")
