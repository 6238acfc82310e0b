"""Where an export is written: atomically, and never over what this did not make."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from streamgate.errors import UsageError, display
from streamgate.store import files, jsonlines, schemas
from streamgate.store.jsonlines import dumps
from streamgate.store.layout import RECEIPT, STATE_DIR, has_manifest
from streamgate.store.lock import Lock
from streamgate.store.manifest import Manifest
from streamgate.store.schemas import mismatch


@contextmanager
def new_file(path: Path, *, overwrite: bool, is_ours: Callable[[Path], bool]) -> Iterator[IO[bytes]]:
    """A file that appears whole at `path` when the block ends well.

    Raises UsageError when something is there (with `overwrite`: something that `is_ours` does not know), and
    SinkError.
    """
    if os.path.lexists(path):
        if not overwrite:
            raise UsageError(f"{display(path)} exists; give --overwrite to replace it, or another place with -o")
        if path.is_symlink() or not path.is_file() or not is_ours(path):
            raise UsageError(f"{display(path)} was not written by `streamgate export`; choose another place with -o")
    with files.sink_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_writer(path.parent, path.name) as file:
            yield file


@contextmanager
def new_folder(path: Path, kind: str, *, overwrite: bool) -> Iterator[Path]:
    """A folder to fill, which appears whole at `path` when the block ends well.

    `kind` is the format, for the receipt. Raises
    UsageError when something is there that may not go: anything without `overwrite`, with it whatever no receipt lists.
    Raises SinkError.
    """
    path = path.absolute()
    if os.path.lexists(path) and not _is_empty_folder(path):
        if not overwrite:
            raise UsageError(f"{display(path)} exists; give --overwrite to replace it, or another place with -o")
        if foreign := _foreign(path):
            command = "clips" if kind == "clips" else "export"
            raise UsageError(
                f"{display(foreign)} was not written by `streamgate {command}`; move it away or choose another place "
                "with -o"
            )
    parent, staging, old = path.parent, f".{path.name}.tmp", f".{path.name}.old"
    with files.sink_errors(path):
        parent.mkdir(parents=True, exist_ok=True)
        files.make_folder(parent, f"{staging}/{STATE_DIR}")
    lock = Lock(parent / staging)
    lock.acquire()
    try:
        # Left by an export that died: we hold the lock.
        files.remove_tree(parent, f"{staging}/content")
        with files.sink_errors(path):
            content = files.make_folder(parent, f"{staging}/content")
        yield content
        with files.sink_errors(path):
            names = sorted(one.relative_to(content).as_posix() for one in content.rglob("*") if one.is_file())
            receipt = {"program": "streamgate", "format": kind, "files": names}
            (content / RECEIPT).write_text(dumps(receipt, pretty=True) + "\n", encoding="utf-8")
            files.sync_tree(content)
            if os.path.lexists(path):
                files.remove_tree(parent, old)
                files.rename_folder(parent, path.name, old)
            files.rename_folder(parent, f"{staging}/content", path.name)
            files.remove_tree(parent, old)
    finally:
        files.remove_tree(parent, staging)
        lock.release()


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _foreign(path: Path) -> Path | None:
    """What is at `path` and no receipt lists: the folder itself where it has no receipt, else a file in it."""
    listed = _listed(path)
    if listed is None:
        return path
    there = (one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_symlink() or not one.is_dir())
    return next((path / name for name in there if name not in listed and name != RECEIPT), None)


def _listed(path: Path) -> frozenset[str] | None:
    """The files that the receipt in `path` lists, None without a receipt of ours."""
    try:
        with files.open_below(path, RECEIPT) as file:
            receipt = jsonlines.parse(file.read(jsonlines.MAX_LIST_BYTES))
    except (OSError, ValueError):
        return None
    if receipt.get("program") != "streamgate" or mismatch(receipt, schemas.RECEIPT):
        return None
    return frozenset(receipt["files"])


def adopt(out: Path, names: Iterable[str]) -> None:
    """List files below `out` in its manifest, so that `run --overwrite` takes them along. Raises SinkError."""
    if not has_manifest(out):
        return
    with Lock(out):
        manifest = Manifest.read(out)
        owned = tuple(sorted({*manifest.owned, *names}))
        if owned != tuple(sorted(manifest.owned)):
            manifest.owned = owned
            with files.sink_errors(out):
                manifest.write()

