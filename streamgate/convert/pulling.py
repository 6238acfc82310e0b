"""`models pull`: download, check, convert and write a receipt; each step is atomic."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from streamgate.convert.checkpoints import Converted, convert
from streamgate.convert.onnx_check import OPSET
from streamgate.errors import UsageError, WeightsError
from streamgate.redaction import redact_url
from streamgate.weights import store
from streamgate.weights.catalog import CONVERTER_VERSION, Entry, SourceFile, load_catalog
from streamgate.weights.fetch import fetch
from streamgate.weights.files import atomic_write, sha256_of
from streamgate.weights.parameters import TIER as PARAMETERS_TIER
from streamgate.weights.parameters import pull_parameters

DOWNLOADS = "downloads"
"""Folder inside the models folder that keeps upstream files, so that a new converter needs no new download."""


def pull(
    tier: str = "standard",
    mirror: str | None = None,
    report: Callable[[str], None] = lambda text: None,
    progress: Callable[[str, int, int], None] = lambda file, done, size: None,
) -> dict[str, str]:
    """Install every entry of `tier` in the models folder, except those that are already installed and intact.

    Args:
        tier: "standard", "liveness" for the measure `live`, or "measures" for the parameters of NIQE and BRISQUE.
        mirror: http(s) or file URL, or a folder, with the files under the names in the catalog. The default is
            $STREAMGATE_MIRROR or, if that is not set, the pinned upstream URLs.
        report: called with a line before each conversion.
        progress: called during a download with the file's name, the number of bytes received and the file's size.

    Returns:
        What was done, by the name of the weights: "present" (nothing was done), "converted" (from earlier downloads) or
        "pulled" (downloaded and converted).

    Raises:
        UsageError: the tier or the scheme of the mirror's URL is unknown.
        WeightsError: a file is not reachable, has a wrong size or hash or cannot be converted, or the models folder is
            not writable.
    """
    entries = [entry for entry in load_catalog() if entry.tier == tier]
    if not entries and tier != PARAMETERS_TIER:
        tiers = ", ".join(sorted({entry.tier for entry in load_catalog()} | {PARAMETERS_TIER}))
        raise UsageError(f"there is no tier {tier!r} to pull; known tiers: {tiers}")
    base = _mirror_base(mirror or os.environ.get("STREAMGATE_MIRROR"))
    if tier == PARAMETERS_TIER:
        return pull_parameters(base, progress)
    return {entry.name: _pull_entry(entry, base, report, progress) for entry in entries}


def is_ready(entry: Entry, folder: Path) -> bool:
    """Whether the entry's converted files exist, are not stale, and match the hashes in the receipt."""
    if not (folder / store.RECEIPT_NAME).is_file():
        return False
    try:
        weights = store.from_receipt(folder, entry.tier)
    except WeightsError:
        return False
    if weights is None or sha256_of(weights.path) != weights.sha256:
        return False
    if weights.affine is None:
        return True
    return weights.affine.is_file() and sha256_of(weights.affine) == weights.affine_sha256


def _pull_entry(
    entry: Entry, base: str | None, report: Callable[[str], None], progress: Callable[[str, int, int], None]
) -> str:
    root = store.models_folder()
    folder = root / entry.name
    action = "present"
    try:
        if not is_ready(entry, folder):
            action = "converted"
            for source in entry.source:
                target = root / DOWNLOADS / source.file
                if not (target.is_file() and sha256_of(target) == source.sha256):
                    url = source.url if base is None else f"{base}/{quote(source.file)}"
                    fetch(source, url, target, entry.name, partial(_arrived, source, progress))
                    action = "pulled"
            report(f"converting {entry.name} to ONNX")
            install(entry, [root / DOWNLOADS / source.file for source in entry.source], folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WeightsError(
            f"{entry.name}: cannot write to {root} ({reason}); free space there or set STREAMGATE_MODELS"
        ) from error
    return action


def _arrived(source: SourceFile, progress: Callable[[str, int, int], None], done: int) -> None:
    progress(source.file, done, source.size)


def install(entry: Entry, sources: list[Path], folder: Path) -> None:
    """Convert verified upstream files into `folder`: write the ONNX file, the arrays and, last, the receipt.

    Raises:
        WeightsError: the conversion failed or was rejected.
        OSError: the folder is not writable.
    """
    converted = convert(entry.converter, sources, entry.options)
    record = {
        "name": entry.name,
        "roles": list(entry.roles),
        "source": [{"file": source.file, "sha256": source.sha256, "url": source.url} for source in entry.source],
        "converter": entry.converter,
        "converter_version": CONVERTER_VERSION,
        "options": dict(entry.options),
        "opset": OPSET,
        "versions": converted.versions,
        "input": asdict(entry.input),
        "converted_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_conversion(folder, converted, record)


def write_conversion(folder: Path, converted: Converted, record: Mapping[str, Any]) -> None:
    """Write the ONNX file, the arrays and, last, the receipt: `record` with the hashes of these files.

    Raises OSError if the folder is not writable.
    """
    # Remove the receipt first, so that a partly replaced conversion does not count as installed.
    (folder / store.RECEIPT_NAME).unlink(missing_ok=True)
    receipt = {**record, "onnx": _written(folder / store.ONNX_NAME, converted.onnx)}
    if converted.arrays:
        buffer = BytesIO()
        np.savez(buffer, **converted.arrays)  # type: ignore[arg-type]
        receipt["arrays"] = _written(folder / store.ARRAYS_NAME, buffer.getvalue())
    _written(folder / store.RECEIPT_NAME, (json.dumps(receipt, indent=2) + "\n").encode())


def _written(path: Path, content: bytes) -> dict[str, Any]:
    with atomic_write(path) as file:
        file.write(content)
    return {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _mirror_base(mirror: str | None) -> str | None:
    if not mirror:
        return None
    if "://" not in mirror:
        folder = Path(mirror).expanduser()
        if not folder.is_dir():
            raise UsageError(f"mirror {mirror!r} is neither a URL nor a folder")
        return folder.resolve().as_uri()
    if mirror.partition("://")[0].lower() not in ("http", "https", "file"):
        raise UsageError(f"mirror {redact_url(mirror)} must be an http, https or file URL, or a folder")
    if not _has_place(mirror):
        raise UsageError(
            f"mirror {redact_url(mirror)}: host or port is malformed; special characters of a password must be "
            "percent-encoded"
        )
    return mirror.rstrip("/")


def _has_place(mirror: str) -> bool:
    try:
        parts = urlsplit(mirror)
        return parts.port != 0 and bool(parts.hostname or parts.scheme == "file")
    except ValueError:
        return False  # the error's text is not used, because it may contain the password
