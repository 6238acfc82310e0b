"""Log of the sources that were completely delivered to a destination, kept in the output folder for later processes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from streamgate.store import files, jsonlines
from streamgate.store.jsonlines import dumps
from streamgate.store.layout import STATE_DIR

_NAME = "delivered.jsonl"


def remove_delivery_log(out: Path) -> None:
    """Remove the log of an earlier run, whose results are being replaced. Raises OSError."""
    files.remove_listed(out, [f"{STATE_DIR}/{_NAME}"])


def read_delivery_log(out: Path, destination: str) -> set[str]:
    """Ids of the sources that earlier processes of this run delivered to `destination`, which is a redacted address.

    All destinations of a run share OUT/.streamgate/delivered.jsonl. A log that cannot be read counts as empty: the
    sources are sent again, and their events have the same ids as before.
    """
    with suppress(OSError):
        entries = jsonlines.read_log(out, f"{STATE_DIR}/{_NAME}")
        return {str(one.get("source_id")) for one in entries if one.get("sink") == destination}
    return set()


def log_delivery(out: Path, destination: str, source_id: str) -> None:
    """Record that all events of this source were delivered to the destination.

    A failed write is ignored: a later process then sends the source again.
    """
    with suppress(OSError):
        files.append_line(out, f"{STATE_DIR}/{_NAME}", dumps({"sink": destination, "source_id": source_id}))
