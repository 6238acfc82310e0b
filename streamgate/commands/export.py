"""`streamgate export`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command
from streamgate.commands.options import PATH, PATH_OR_ADDRESS, quiet_option, results_argument
from streamgate.errors import SourceError, UsageError, display
from streamgate.redaction import redact_url
from streamgate.store.layout import EXPORTS, RECEIPT

if TYPE_CHECKING:
    from streamgate.exports.pairs import Cut
    from streamgate.store.folder import RunFolder
    from streamgate.store.jsonlines import Record

NAMES = {
    "parquet": "faces.parquet", "webdataset": "webdataset", "imagefolder": "imagefolder", "csv": "faces.csv",
    "pairs": "pairs",
}  # fmt: skip
"""The formats, and the names of their exports in OUT/exports."""


@click.command(
    cls=Command,
    epilog="""
    streamgate export faces --to parquet --to csv  # in faces/exports
    streamgate export faces --to parquet --images  # one file with everything
    streamgate export faces --to pairs --seconds 8  # pictures and videos
    streamgate export faces --to webdataset -o shards --shard-mb 500
    streamgate export faces --to webdataset -o s3://bucket/faces
    """,
)
@results_argument
@click.option(
    "--to", "formats", multiple=True, required=True, type=click.Choice(list(NAMES)), help="Format. Repeatable."
)
@click.option(
    "-o", "--output", "target", metavar="DEST", type=PATH_OR_ADDRESS,
    help="File or folder to write; may be in an object store (s3://...). [default: in OUT/exports]",
)
@click.option(
    "--images", is_flag=True,
    help="Include the pictures in the Parquet file, in the format that Hugging Face `datasets` reads.",
)
@click.option(
    "--seconds", type=click.FloatRange(0.5, 600), default=5.0, show_default=True, metavar="S",
    help="With `--to pairs`: length of the driving videos.",
)
@click.option(
    "--footage", multiple=True, metavar="DIR", type=PATH,
    help="With `--to pairs`: folder to search for source files that were moved. Repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier export at the same path.")
@click.option(
    "--shard-mb", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, metavar="N",
    help="Size of a WebDataset shard in MB.",
)
@quiet_option
def export(
    out: Path,
    formats: Sequence[str],
    target: Path | str | None,
    images: bool,
    seconds: float,
    footage: tuple[Path, ...],
    overwrite: bool,
    shard_mb: int,
    quiet: bool,
) -> int:
    """Write the kept faces in OUT as Parquet, WebDataset, imagefolder, CSV or pairs.

    pairs: for each person, a face with a neutral expression, and a video of the seconds in which the mouth and the head
    move most.
    """
    from streamgate.exports.formats import write_csv, write_imagefolder, write_parquet, write_webdataset
    from streamgate.exports.pairs import write_pairs
    from streamgate.store.folder import RunFolder
    from streamgate.store.manifest import Manifest

    if target is not None and len(formats) > 1:
        raise UsageError("-o names one file or folder: give only one --to, or leave out -o to write into OUT/exports")
    if images and "parquet" not in formats:
        raise UsageError("--images is for Parquet: add --to parquet (imagefolder and webdataset always have pictures)")
    folder = RunFolder(out)
    folder.check()

    def warn(words: str) -> None:
        click.echo(f"streamgate: warning: {words}", err=True)

    writers: dict[str, Callable[..., int]] = {
        "parquet": partial(write_parquet, images=images),
        "csv": partial(write_csv, warn=warn),
        "imagefolder": write_imagefolder,
        "webdataset": partial(write_webdataset, shard_bytes=shard_mb * 1_000_000),
        "pairs": partial(write_pairs, seconds=seconds, cut=_cutter(out, footage), warn=warn),
    }
    if isinstance(target, str):
        _upload(folder, target, formats[0], writers[formats[0]], overwrite=overwrite, quiet=quiet)
        return 0
    if target is None or _is_inside(out, target):
        # The results' manifest will list the export, so reject a manifest with another schema before writing anything.
        Manifest.read(out)
    for kind in dict.fromkeys(formats):
        path = target if target is not None else out / EXPORTS / NAMES[kind]
        count = writers[kind](folder, path, overwrite=overwrite)
        _adopt_inside(out, path)
        if not quiet:
            _warn(count, kind, display(path))
    return 0


def _upload(
    folder: RunFolder, url: str, kind: str, write: Callable[..., int], *, overwrite: bool, quiet: bool
) -> None:
    from streamgate.exports.upload import upload
    from streamgate.sources.discovery import in_store

    shown = display(redact_url(url))
    if not in_store(url):
        raise UsageError(f"{shown}: not an address in an object store; give s3://BUCKET/PREFIX, or a path")
    count = upload(url, kind, partial(write, folder), overwrite=overwrite)
    if not quiet:
        _warn(count, kind, shown)


def _warn(count: int, kind: str, where: str) -> None:
    what = "pair" if kind == "pairs" else "face"
    click.echo(f"{count} {what}{'' if count == 1 else 's'} in {where}", err=True)


def _cutter(out: Path, footage: Sequence[Path]) -> Cut:
    """Return a function that writes a time window of a source as a video; `footage` is searched for moved sources."""
    from streamgate.clips.cutting import encode_window
    from streamgate.clips.windows import Window
    from streamgate.sources.file import VideoFile
    from streamgate.sources.footage import FootageFinder

    finder = FootageFinder(out, footage)

    def cut(record: Record, start: float, end: float, target: Path) -> None:
        with finder.open(record) as source:
            if not isinstance(source, VideoFile):
                raise SourceError(f"{source.location}: not a video file; driving videos are cut from video files only")
            encode_window(source, target, Window(start, end))

    return cut


def _adopt_inside(out: Path, path: Path) -> None:
    """Register an export inside the results folder, so that `run --overwrite` removes it with these results."""
    from streamgate.exports.targets import adopt

    if not _is_inside(out, path):
        return
    written = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    written += [path / RECEIPT] if path.is_dir() else []
    root = out.resolve()
    adopt(out, {one.resolve().relative_to(root).as_posix() for one in written})


def _is_inside(out: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(out.resolve())
