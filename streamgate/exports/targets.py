"""Targets of exports: written atomically, never over files that streamgate did not write."""

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
def new_file(path: Path, *, overwrite: bool, is_ours: Callable[[IO[bytes]], bool]) -> Iterator[IO[bytes]]:
    """Write `path` atomically when the block ends without an error.

    Raises UsageError if `path` exists (with `overwrite`: if it is not a file that `is_ours` accepts), and SinkError if
    it cannot be written.
    """
    if os.path.lexists(path):
        if not overwrite:
            raise UsageError(f"{display(path)} exists; give --overwrite to replace it, or choose another path with -o")
        if path.is_symlink() or not path.is_file() or not _opened(path, is_ours):
            raise UsageError(f"{display(path)} was not written by `streamgate export`; choose another path with -o")
    with files.sink_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_writer(path.parent, path.name) as file:
            yield file


def _opened(path: Path, is_ours: Callable[[IO[bytes]], bool]) -> bool:
    with open(path, "rb") as file:
        return is_ours(file)


@contextmanager
def new_folder(path: Path, kind: str, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder to fill; it is renamed to `path` when the block ends without an error.

    `kind` is the format, as written to the receipt. Raises UsageError if `path` is not empty (with `overwrite`: if it
    has files that are not in its receipt), and SinkError if it cannot be written.
    """
    path = path.absolute()
    if os.path.lexists(path) and not _is_empty_folder(path):
        if not overwrite:
            raise UsageError(f"{display(path)} exists; give --overwrite to replace it, or choose another path with -o")
        if foreign := _foreign(path):
            command = "clips" if kind == "clips" else "export"
            raise UsageError(
                f"{display(foreign)} was not written by `streamgate {command}`; move it away or choose another path "
                "with -o"
            )
    parent, staging, old = path.parent, f".{path.name}.tmp", f".{path.name}.old"
    with files.sink_errors(path):
        parent.mkdir(parents=True, exist_ok=True)
        files.make_folder(parent, f"{staging}/{STATE_DIR}")
    lock = Lock(parent / staging)
    lock.acquire()
    try:
        # An export that was killed may have left this folder; removing it is safe, because we hold the lock.
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
    """A file in `path` that the receipt does not list, or None; `path` itself if there is no receipt."""
    listed = _listed(path)
    if listed is None:
        return path
    there = (one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_symlink() or not one.is_dir())
    return next((path / name for name in there if name not in listed and name != RECEIPT), None)


def _listed(path: Path) -> frozenset[str] | None:
    """The files that are listed in the receipt in `path`; None if there is no valid receipt."""
    try:
        with files.open_below(path, RECEIPT) as file:
            receipt = jsonlines.parse(file.read(jsonlines.MAX_LIST_BYTES))
    except (OSError, ValueError):
        return None
    if receipt.get("program") != "streamgate" or mismatch(receipt, schemas.RECEIPT):
        return None
    return frozenset(receipt["files"])


def adopt(out: Path, names: Iterable[str]) -> None:
    """Add files below `out` to its manifest, so that `run --overwrite` removes them. Raises SinkError."""
    if not has_manifest(out):
        return
    with Lock(out):
        manifest = Manifest.read(out)
        owned = tuple(sorted({*manifest.owned, *names}))
        if owned != tuple(sorted(manifest.owned)):
            manifest.owned = owned
            with files.sink_errors(out):
                manifest.write()

