"""Which sources a destination has had as a whole, noted in the output folder so that a later process knows too."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path

from streamgate.store import files
from streamgate.store.jsonlines import dumps

_NAME = "delivered.jsonl"


def remove_delivered(house: Path) -> None:
    """Forget what an earlier run delivered: the results in the folder are no longer its. Raises OSError."""
    (house / _NAME).unlink(missing_ok=True)


class Delivered:
    """Sources delivered to one destination, by their ids. Thread-safe.

    Lines are appended to OUT/.streamgate/delivered.jsonl, which all destinations of a run share. A line that the disk
    refuses is no error: its source is sent again, and repetitions are told by their ids.

    Args:
        house: OUT/.streamgate; None keeps it in memory.
        destination: the redacted address.
    """

    def __init__(self, house: Path | None, destination: str) -> None:
        self._path = None if house is None else house / _NAME
        self._destination = destination
        self._mutex = threading.Lock()
        self._delivered: set[str] = set()

    def open(self, *, keep: bool) -> None:
        """Begin: with `keep` where an earlier process of the same run ended, else with nothing delivered."""
        if self._path is None:
            return
        if not keep:
            with suppress(OSError):
                remove_delivered(self._path.parent)
            return
        with suppress(OSError):
            for line in self._path.read_bytes().splitlines():
                # A crash may have torn the last one.
                with suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    if entry["sink"] == self._destination:
                        self._delivered.add(str(entry["source_id"]))

    def __contains__(self, source_id: object) -> bool:
        with self._mutex:
            return source_id in self._delivered

    def note(self, source_id: str) -> None:
        """The destination has all of this source. Never raises."""
        with self._mutex:
            self._delivered.add(source_id)
            if self._path is not None:
                with suppress(OSError):
                    files.append_line(self._path, dumps({"sink": self._destination, "source_id": source_id}))
