"""`streamgate export`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click

from streamgate.errors import UsageError, display
from streamgate.exports.formats import write_csv, write_imagefolder, write_parquet, write_webdataset
from streamgate.exports.places import RECEIPT, adopt
from streamgate.results import Results
from streamgate.store.manifest import Manifest

FORMATS = ("parquet", "webdataset", "imagefolder", "csv")
NAMES = {"parquet": "faces.parquet", "csv": "faces.csv", "webdataset": "webdataset", "imagefolder": "imagefolder"}
"""Names of the exports in OUT/exports."""


def export_command(
    out: Path, formats: Sequence[str], target: Path | None, *, overwrite: bool, shard_mb: int, quiet: bool
) -> int:
    """Write the results in `out` in each of `formats`; returns the exit code.

    `target` is the file (parquet, csv) or folder to make, OUT/exports/... when None; it takes one format.
    Raises StreamgateError.
    """
    if target is not None and len(formats) > 1:
        raise UsageError("-o names one place: give one --to, or leave -o out (then exports go to OUT/exports)")
    results = Results.open(out)
    writers: dict[str, Callable[..., int]] = {
        "parquet": write_parquet,
        "csv": write_csv,
        "imagefolder": write_imagefolder,
        "webdataset": partial(write_webdataset, shard_bytes=shard_mb * 1_000_000),
    }
    if target is None or _is_inside(out, target):
        # What lies in the results is listed in their manifest: one of another schema has to refuse before, not after.
        Manifest.read(out / ".streamgate")
    for kind in dict.fromkeys(formats):
        place = target if target is not None else out / "exports" / NAMES[kind]
        count = writers[kind](results, place, overwrite=overwrite)
        _adopt_inside(out, place)
        if not quiet:
            click.echo(f"{count} face{'' if count == 1 else 's'} in {display(place)}", err=True)
    return 0


def _adopt_inside(out: Path, place: Path) -> None:
    """An export inside the results folder goes when `run --overwrite` replaces these results."""
    if not _is_inside(out, place):
        return
    written = [place] if place.is_file() else [one for one in place.rglob("*") if one.is_file()]
    written += [place / RECEIPT] if place.is_dir() else []
    root = out.resolve()
    adopt(out, {one.resolve().relative_to(root).as_posix() for one in written})


def _is_inside(out: Path, place: Path) -> bool:
    return place.resolve().is_relative_to(out.resolve())
