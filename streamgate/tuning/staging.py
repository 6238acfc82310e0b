"""Other contents for committed sources, put in place so that a failure half-way loses nothing.

OUT/.streamgate/tune/new/<source_id>/    complete folders that wait
OUT/.streamgate/tune/ready.json          written when all of them are complete: from here on the tuning is done, and
                                         whoever comes next finishes it (`finish`)
OUT/.streamgate/tune/old/<source_id>/    the folders they have replaced, removed at the end
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamgate.errors import SinkError
from streamgate.store import files
from streamgate.store.jsonlines import SCHEMA, Record, dumps
from streamgate.store.manifest import Manifest

_READY = "ready.json"


class Staging:
    """The tuning of one output folder, whose lock the caller holds. Methods raise SinkError."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._house = out / ".streamgate" / "tune"
        self.new = self._house / "new"
        self._old = self._house / "old"

    def begin(self) -> None:
        """Start empty; what an earlier tuning left that never was complete goes."""
        with files.sink_errors(self._house):
            files.remove_tree(self._house)
            self.new.mkdir(parents=True)

    def folder(self, source_id: str) -> Path:
        """An empty folder for the new contents of a source."""
        folder = self.new / source_id
        with files.sink_errors(folder):
            folder.mkdir()
        return folder

    def commit(self, told: Mapping[str, Any], names: Mapping[str, list[str]]) -> None:
        """Everything in `new` is complete: `names` are each source's files.

        `told` holds what finishing takes beside them: `run`, the manifest's run from now on, and what else the caller
        of `finish` wants to be given back.
        """
        with files.sink_errors(self._house):
            files.sync_tree(self.new)
            files.write_text(self._house / _READY, dumps({**told, "schema": SCHEMA, "sources": dict(names)}))

    def pending(self) -> bool:
        """Whether there is a complete tuning to be finished."""
        return (self._house / _READY).is_file()

    def finish(self, manifest: Manifest) -> Record:
        """Put what was committed in place, as far as that has not happened yet, and write the manifest.

        Returns what `commit` was told.
        """
        ready = self._ready()
        with files.sink_errors(self._out):
            self._old.mkdir(exist_ok=True)
            manifest.run = ready["run"]
            # Both sets of names are listed meanwhile: whatever a crash leaves, --overwrite knows it.
            before = {key: manifest.sources.get(key, ()) for key in ready["sources"]}
            for key, names in ready["sources"].items():
                manifest.sources[key] = tuple(sorted({*before[key], *names}))
            manifest.write()
            for key in sorted(ready["sources"]):
                self._swap(key, set(before[key]))
            for key, names in ready["sources"].items():
                manifest.sources[key] = tuple(names)
            manifest.write()
        return ready

    def clean(self) -> None:
        """All is in place and derived."""
        with files.sink_errors(self._house):
            with suppress(FileNotFoundError):
                (self._house / _READY).unlink()
            files.remove_tree(self._house)

    def _swap(self, source_id: str, listed: set[str]) -> None:
        new, final, old = self.new / source_id, self._out / source_id, self._old / source_id
        if not new.is_dir():
            return  # done before a crash
        if final.exists() and not old.exists():
            _keep_strangers(final, new, listed)
            files.rename_folder(final, old)
        files.rename_folder(new, final)

    def _ready(self) -> Record:
        path = self._house / _READY
        try:
            with files.sink_errors(path):
                ready = json.loads(path.read_bytes())
            if ready["schema"] == SCHEMA and isinstance(ready["run"], dict) and isinstance(ready["sources"], dict):
                return dict(ready)
        except (ValueError, KeyError, TypeError):
            pass
        raise SinkError(f"{path} is damaged; remove {self._house} and tune again")


def carry(old: Path, new: Path) -> None:
    """The same file in another folder: linked where that can be, else copied. Raises OSError."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)


def _keep_strangers(folder: Path, new: Path, listed: set[str]) -> None:
    """Files that others put into a source's folder stay with it."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in listed and path.is_file() and not path.is_symlink() and not (new / name).exists():
            carry(path, new / name)
