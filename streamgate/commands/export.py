"""`streamgate export`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command
from streamgate.commands.options import PATH, quiet_option, results_argument
from streamgate.errors import SourceError, UsageError, display
from streamgate.store.layout import EXPORTS, RECEIPT

if TYPE_CHECKING:
    from streamgate.exports.pairs import Cut
    from streamgate.store.jsonlines import Record

NAMES = {
    "parquet": "faces.parquet", "webdataset": "webdataset", "imagefolder": "imagefolder", "csv": "faces.csv",
    "pairs": "pairs",
}  # fmt: skip
"""The formats, and the names of the exports in OUT/exports."""


@click.command(
    cls=Command,
    epilog="""
    streamgate export faces --to parquet --to csv  # in faces/exports
    streamgate export faces --to parquet --images  # one file with all of it
    streamgate export faces --to pairs --seconds 8  # reference and driving
    streamgate export faces --to webdataset -o shards --shard-mb 500
    """,
)
@results_argument
@click.option(
    "--to", "formats", multiple=True, required=True, type=click.Choice(list(NAMES)), help="Format. Repeatable."
)
@click.option(
    "-o", "--output", "target", metavar="DEST", type=PATH, help="File or folder to write. [default: in OUT/exports]"
)
@click.option(
    "--images", is_flag=True, help="Put the pictures themselves into the Parquet file, as `datasets` reads them."
)
@click.option(
    "--seconds", type=click.FloatRange(0.5, 600), default=5.0, show_default=True, metavar="S",
    help="Length of the driving videos of pairs.",
)
@click.option(
    "--footage", multiple=True, metavar="DIR", type=PATH,
    help="Folder to search for sources of pairs that were moved. Repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier export there.")
@click.option(
    "--shard-mb", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, metavar="N",
    help="Size of a WebDataset shard in MB.",
)
@quiet_option
def export(
    out: Path,
    formats: Sequence[str],
    target: Path | None,
    images: bool,
    seconds: float,
    footage: tuple[Path, ...],
    overwrite: bool,
    shard_mb: int,
    quiet: bool,
) -> int:
    """Write the kept faces in OUT as Parquet, WebDataset, imagefolder, CSV or pairs.

    pairs: for each person a face at rest, and the seconds in which mouth and head move most, as video.
    """
    from streamgate.exports.formats import write_csv, write_imagefolder, write_parquet, write_webdataset
    from streamgate.exports.pairs import write_pairs
    from streamgate.store.folder import RunFolder
    from streamgate.store.manifest import Manifest

    if target is not None and len(formats) > 1:
        raise UsageError("-o names one file or folder: give one --to, or leave -o out to write into OUT/exports")
    if images and "parquet" not in formats:
        raise UsageError("--images is for Parquet: add --to parquet (imagefolder and webdataset hold pictures anyway)")
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
    if target is None or _is_inside(out, target):
        # What is in the results is listed in their manifest: one of another schema has to refuse before, not after.
        Manifest.read(out)
    for kind in dict.fromkeys(formats):
        path = target if target is not None else out / EXPORTS / NAMES[kind]
        count = writers[kind](folder, path, overwrite=overwrite)
        _adopt_inside(out, path)
        if not quiet:
            what = "pair" if kind == "pairs" else "face"
            click.echo(f"{count} {what}{'' if count == 1 else 's'} in {display(path)}", err=True)
    return 0


def _cutter(out: Path, footage: Sequence[Path]) -> Cut:
    """What writes some seconds of a run's source as a video, wherever that is now."""
    from streamgate.clips.cutting import encode_window
    from streamgate.clips.windows import Window
    from streamgate.sources.file import VideoFile
    from streamgate.sources.footage import FootageFinder

    finder = FootageFinder(out, footage)

    def cut(record: Record, start: float, end: float, target: Path) -> None:
        with finder.open(record) as source:
            if not isinstance(source, VideoFile):
                raise SourceError(f"{source.location}: are pictures; driving videos are cut from video files only")
            encode_window(source, target, Window(start, end))

    return cut


def _adopt_inside(out: Path, path: Path) -> None:
    """An export inside the results folder goes when `run --overwrite` replaces these results."""
    from streamgate.exports.targets import adopt

    if not _is_inside(out, path):
        return
    written = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    written += [path / RECEIPT] if path.is_dir() else []
    root = out.resolve()
    adopt(out, {one.resolve().relative_to(root).as_posix() for one in written})


def _is_inside(out: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(out.resolve())
