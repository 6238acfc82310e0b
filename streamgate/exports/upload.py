"""Exports to object stores: written locally, then uploaded; never over files that streamgate did not write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from streamgate.errors import SinkError, UsageError, display
from streamgate.exports.formats import is_our_csv, is_our_parquet
from streamgate.redaction import redact_url
from streamgate.sources.remote import RemotePath, remote_files, remote_path
from streamgate.sources.stores import RemoteError, put, remove
from streamgate.store import jsonlines, schemas
from streamgate.store.jsonlines import dumps
from streamgate.store.layout import RECEIPT
from streamgate.store.schemas import mismatch

_FILES: dict[str, Callable[[IO[bytes]], bool]] = {"parquet": is_our_parquet, "csv": is_our_csv}
"""Formats that are a single file, with the function that recognises our files."""


def upload(url: str, kind: str, write: Callable[[Path], int], *, overwrite: bool) -> int:
    """Upload an export in the format `kind` to `url`; `write` first writes it to a temporary path.

    Returns the result of `write`. For a folder, a receipt marked as incomplete is uploaded first, so that the files are
    still recognized as ours after a crash; the final receipt is uploaded last. Raises UsageError if something exists at
    `url` that must not be replaced, and SinkError if the upload fails.
    """
    url = url.rstrip("/")
    shown = display(redact_url(url))
    with _sink_errors(shown):
        before = _there(url, kind, shown, overwrite=overwrite)
    with tempfile.TemporaryDirectory(prefix="streamgate-export-") as folder:
        local = Path(folder) / (RemotePath(url).name or "export")
        count = write(local)
        with _sink_errors(shown):
            if kind in _FILES:
                put(url, local)
            else:
                _put_folder(url, local, before)
    return count


def _put_folder(url: str, local: Path, before: frozenset[str]) -> None:
    receipt = jsonlines.parse((local / RECEIPT).read_bytes())
    names = list(receipt["files"])
    both = {**receipt, "files": sorted({*before, *names}), "complete": False}
    put(f"{url}/{RECEIPT}", (dumps(both, pretty=True) + "\n").encode())
    for name in names:
        put(f"{url}/{name}", local / name)
    for name in sorted(before - set(names)):
        remove(f"{url}/{name}")
    put(f"{url}/{RECEIPT}", local / RECEIPT)


def _there(url: str, kind: str, shown: str, *, overwrite: bool) -> frozenset[str]:
    """The files of an earlier export at `url`. Raises RemoteError, and UsageError if anything else is there."""
    try:
        found = remote_path(url)
    except RemoteError as error:
        if not error.missing:
            raise
        return frozenset()
    if found.is_file() and kind in _FILES:
        files = [found]
    else:
        files = [found] if found.is_file() else remote_files(url)
    if files and not overwrite:
        raise UsageError(f"{shown} exists; give --overwrite to replace it, or choose another path with -o")
    foreign = UsageError(f"{shown} was not written by `streamgate export`; choose another path with -o")
    if kind in _FILES:
        with found.open() as file:
            if not found.is_file() or not _FILES[kind](cast(IO[bytes], file)):
                raise foreign
        return frozenset()
    if not files:
        return frozenset()
    prefix = RemotePath(url).key + "/"
    names = {path.key.removeprefix(prefix): path for path in files}
    receipt = _receipt(names.get(RECEIPT))
    if receipt is None:
        raise foreign
    listed = frozenset(receipt["files"])
    if strange := sorted(name for name in names if name not in listed and name != RECEIPT):
        raise UsageError(
            f"{shown}/{display(strange[0])} was not written by `streamgate export`; move it away or choose another "
            "path with -o"
        )
    return listed & names.keys()  # leave out files that do not exist, because the receipt may have been edited


def _receipt(path: RemotePath | None) -> dict[str, Any] | None:
    if path is None or (path.size or 0) > jsonlines.MAX_LIST_BYTES:
        return None
    try:
        with path.open() as file:
            receipt = jsonlines.parse(file.read())
    except ValueError:
        return None
    return None if receipt.get("program") != "streamgate" or mismatch(receipt, schemas.RECEIPT) else receipt


@contextmanager
def _sink_errors(shown: str) -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        raise SinkError(f"{shown}: {error.words}") from None
