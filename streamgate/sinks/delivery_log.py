"""Log of the sources that were completely delivered to a destination, kept in the output folder for later processes."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from streamgate.store import files, jsonlines
from streamgate.store.jsonlines import dumps
from streamgate.store.layout import STATE_DIR

_NAME = "delivered.jsonl"


def remove_delivery_log(out: Path) -> None:
    """Forget what an earlier run delivered, since its results are being replaced. Raises OSError."""
    files.remove_listed(out, [f"{STATE_DIR}/{_NAME}"])


class DeliveryLog:
    """Ids of the sources delivered to one destination. Thread-safe.

    Lines are appended to OUT/.streamgate/delivered.jsonl, which all destinations of a run share. A failed write is not
    an error: the source is sent again, and its events have the same ids.

    Args:
        out: the output folder; None keeps the log in memory.
        destination: the redacted address.
    """

    def __init__(self, out: Path | None, destination: str) -> None:
        self._out = out
        self._destination = destination
        self._mutex = threading.Lock()
        self._delivered: set[str] = set()

    def open(self, *, keep: bool) -> None:
        """Start the log: with `keep`, continue that of an earlier process of the same run; else start empty."""
        if self._out is None:
            return
        with suppress(OSError):
            if not keep:
                remove_delivery_log(self._out)
                return
            entries = jsonlines.read_log(self._out, f"{STATE_DIR}/{_NAME}")
            self._delivered.update(str(one.get("source_id")) for one in entries if one.get("sink") == self._destination)

    def __contains__(self, source_id: object) -> bool:
        with self._mutex:
            return source_id in self._delivered

    def note(self, source_id: str) -> None:
        """Record that the destination has everything of this source. Never raises."""
        with self._mutex:
            self._delivered.add(source_id)
            if self._out is not None:
                line = dumps({"sink": self._destination, "source_id": source_id})
                with suppress(OSError):
                    files.append_line(self._out, f"{STATE_DIR}/{_NAME}", line)
