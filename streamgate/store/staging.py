"""Replaces the contents of committed sources during tuning. Nothing is lost if the replacement is interrupted.

OUT/.streamgate/tune/new/<source_id>/    complete new folders
OUT/.streamgate/tune/ready.json          written when all new folders are complete. From then on the tuning is
                                         committed; if it is interrupted, `finish` completes it later
OUT/.streamgate/tune/old/<source_id>/    the replaced folders, removed at the end

The caller holds the lock of the output folder `out`. All functions may raise SinkError and ResultsError.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamgate.errors import ResultsError, display
from streamgate.store import files, jsonlines, schemas
from streamgate.store.jsonlines import SCHEMA, Record, dumps
from streamgate.store.layout import STATE_DIR, may_be_named
from streamgate.store.manifest import Manifest

_TUNE = f"{STATE_DIR}/tune"
_READY = "ready.json"


def new_folder(out: Path) -> Path:
    """The folder with the new contents, one folder per source."""
    return out / _TUNE / "new"


def begin(out: Path) -> None:
    """Create an empty staging area, and discard an earlier, incomplete tuning."""
    with files.sink_errors(out / _TUNE):
        files.remove_tree(out, _TUNE)
        files.make_folder(out, f"{_TUNE}/new")


def add_source(out: Path, source_id: str) -> Path:
    """Create an empty folder for the new contents of a source."""
    folder = new_folder(out) / source_id
    with files.sink_errors(folder):
        folder.mkdir()
    return folder


def commit(out: Path, record: Mapping[str, Any], names: Mapping[str, list[str]]) -> None:
    """Commit the new contents, which must be complete; `names` are the files of each source.

    `record` must contain `run`, the new run record of the manifest. It may contain other keys for the caller of
    `finish`, which returns the record.
    """
    with files.sink_errors(out / _TUNE):
        files.sync_tree(new_folder(out))
        ready = {**record, "schema": SCHEMA, "sources": dict(names)}
        files.write_text(out, f"{_TUNE}/{_READY}", dumps(ready))


def is_pending(out: Path) -> bool:
    """Whether there is a committed tuning that must be finished."""
    return (out / _TUNE / _READY).is_file()


def finish(out: Path, manifest: Manifest) -> Record:
    """Move the committed contents that are not in place yet to their final folders, and write the manifest.

    Returns the record that was given to `commit`.
    """
    ready = _ready(out)
    with files.sink_errors(out):
        for name in ("new", "old"):
            files.make_folder(out, f"{_TUNE}/{name}")
        manifest.run = ready["run"]
        # List both the old and the new files until all are moved, so that none is unlisted after a crash.
        before = {key: manifest.sources.get(key, ()) for key in ready["sources"]}
        for key, names in ready["sources"].items():
            manifest.sources[key] = tuple(sorted({*before[key], *names}))
        manifest.write()
        for key in sorted(ready["sources"]):
            _swap(out, key, set(before[key]))
        for key, names in ready["sources"].items():
            manifest.sources[key] = tuple(names)
        manifest.write()
    return ready


def clean(out: Path) -> None:
    """Remove the staging area, after all folders are in place and all derived files are written."""
    with files.sink_errors(out / _TUNE):
        with suppress(FileNotFoundError):
            (out / _TUNE / _READY).unlink()
        files.remove_tree(out, _TUNE)


def _swap(out: Path, source_id: str, listed: set[str]) -> None:
    new, final, old = new_folder(out) / source_id, out / source_id, out / _TUNE / "old" / source_id
    if not new.is_dir():
        return  # already moved before a crash
    if final.exists() and not old.exists():
        _keep_strangers(out, source_id, new, listed)
        files.rename_folder(out, source_id, f"{_TUNE}/old/{source_id}")
    files.rename_folder(out, f"{_TUNE}/new/{source_id}", source_id)


def _ready(out: Path) -> Record:
    try:
        ready = jsonlines.read_object(out, f"{_TUNE}/{_READY}", schemas.READY)
        if all(map(may_be_named, ready["sources"])):
            return ready
    except (OSError, ValueError):
        pass
    folder = display(out / _TUNE)
    raise ResultsError(f"{folder}/{_READY} is damaged; remove {folder} and tune again")


def _keep_strangers(out: Path, source_id: str, new: Path, listed: set[str]) -> None:
    """Link files that are not in `listed` (created by other programs) from the folder of a source to its new folder."""
    folder = out / source_id
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in listed and path.is_file() and not path.is_symlink() and not os.path.lexists(new / name):
            files.link_or_copy(out, f"{source_id}/{name}", new / name)
