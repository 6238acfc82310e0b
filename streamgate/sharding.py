"""Shards: parts of the sources of a run, so that many machines can share one run (`--shard 3/8`)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamgate.errors import UsageError
from streamgate.store.layout import SHARDS

if TYPE_CHECKING:  # not imported at run time, to keep the parent process of a run small
    from streamgate.sources.discovery import Discovery, SourceSpec

MOST = 100_000


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `index` (from 1) of `count`."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse text such as `3/8`. Raises UsageError."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        index, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= index <= count <= MOST:
            raise UsageError(f"--shard {text}: write I/N with I from 1 to N, for example 3/8 for shard 3 of 8")
        return cls(index, count)

    def folder(self, out: Path) -> Path:
        """The folder for this shard's results, for example OUT/shards/3."""
        return out / SHARDS / str(self.index)

    def has(self, spec: SourceSpec) -> bool:
        """Whether a source belongs to this shard: every source belongs to exactly one of the `count` shards.

        The shard of a source depends on the source itself, not on its folder or its position in the inputs. A video is
        identified by its name and size, so that no file has to be opened and copies go to the same shard. A source of
        pictures is identified by the names and sizes of its files.
        """
        try:
            if spec.root is not None:
                key = spec.source_id()
            else:
                # Files whose names differ only in case count as copies too.
                key = f"{spec.name.casefold()}:{spec.paths[0].stat().st_size}"
        except OSError:
            # The file is missing or unreadable. Its name alone selects the shard, which reports the error.
            key = spec.paths[0].name
        return self._is_mine(key)

    def share(self, found: Discovery) -> int:
        """Remove from `found` what does not belong to this shard; returns the number of removed sources.

        Errors and duplicates are also assigned to one shard each.
        """
        before = len(found.sources)
        found.sources[:] = [spec for spec in found.sources if self.has(spec)]
        mine = {spec.location for spec in found.sources}
        found.duplicates[:] = [(copy, first) for copy, first in found.duplicates if first in mine]
        found.errors[:] = [error for error in found.errors if self._is_mine(error.location or str(error))]
        return before - len(found.sources)

    def _is_mine(self, key: str) -> bool:
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1
