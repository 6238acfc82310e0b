"""`streamgate score`."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command
from streamgate.commands.options import (
    PATH,
    TEXT_PATH,
    complete_folders,
    device_option,
    models_option,
    preset_option,
    set_option,
)
from streamgate.errors import SinkError, SourceError, UsageError, display, escaped

if TYPE_CHECKING:
    from streamgate.faces import ScoredFace
    from streamgate.frames import Array


@click.command(
    cls=Command,
    epilog="""
    streamgate score portrait.jpg                          # find and score faces
    streamgate score face.png --aligned ffhq --embedding   # an aligned crop
    streamgate score portraits/ --heatmap maps             # show bad regions
    streamgate score portraits/ -o scores.parquet          # write one table
    """,
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=TEXT_PATH)
@click.option("--aligned", type=click.Choice(["arcface", "ffhq"]), help="The images are crops with this alignment.")
@click.option("--embedding", is_flag=True, help="Include the embedding (biometric data).")
@click.option(
    "--heatmap", metavar="DIR", type=PATH, shell_complete=complete_folders,
    help="Write the IFQA heat map of each face to this folder.",
)
@click.option("-o", "--output", "target", metavar="FILE", type=PATH, help="Write a .jsonl, .csv or .parquet file.")
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@click.option(
    "--jobs", type=click.IntRange(1, 256), metavar="N",
    help="Number of images to score in parallel. [default: the number of CPU cores; 16 on a GPU]",
)
@preset_option
@set_option
@models_option
@device_option
def score(
    images: Sequence[str],
    aligned: str | None,
    embedding: bool,
    heatmap: Path | None,
    target: Path | None,
    overwrite: bool,
    jobs: int | None,
    device: str,
    preset: str,
    models: str,
    settings: Sequence[str],
) -> int:
    """Score the faces in images and print one JSON line per image, or write a file with -o."""
    from rich.console import Console

    from streamgate.config import load_config
    from streamgate.engine import Engine
    from streamgate.exports.scores import score_file
    from streamgate.parallel import in_order, usable_cores
    from streamgate.store.files import sink_errors
    from streamgate.store.jsonlines import dumps
    from streamgate.store.records import score_record

    config = load_config(preset, settings)
    if embedding and target is not None and target.suffix != ".jsonl":
        raise UsageError("--embedding does not work with a table: write to stdout or to a .jsonl file")
    failed = done = 0
    taken: set[str] = set()
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(config, models=models, device=device))
        if heatmap is not None:
            if "ifqa" not in engine.run_info().measure_set:
                raise UsageError("--heatmap needs IFQA weights, but none are in use; see `streamgate models list`")
            with sink_errors(heatmap):
                heatmap.mkdir(parents=True, exist_ok=True)
        take = None
        if target is not None:
            take = stack.enter_context(score_file(target, config.measures.recorded, overwrite=overwrite))

        def scored(path: Path) -> tuple[Array | None, list[ScoredFace], str]:
            try:
                image = _read_image(path, config.decoding.max_pixels)
                return image if heatmap is not None else None, engine.score(image, aligned=aligned), ""
            except (SourceError, UsageError) as error:
                return None, [], str(error)

        at_once = jobs or (16 if engine.on_gpu else usable_cores())
        began, count = time.perf_counter(), 0
        console = Console(stderr=True)
        shown = target is not None and console.is_terminal
        status = stack.enter_context(console.status("")) if shown else None
        for number, (path, (image, faces, error)) in enumerate(in_order(scored, _paths(images), at_once), 1):
            count += len(faces)
            if status is not None:
                rate = number / max(time.perf_counter() - began, 1e-3)
                status.update(f"{number} images, {rate:.0f} per second")
            if error:
                failed += 1
                click.echo(f"streamgate: {escaped(error)}", err=True)
            else:
                done += 1
            if heatmap is not None and image is not None:
                _write_heatmaps(heatmap, _name_of(path, taken), image, faces, aligned)
            record = score_record(str(path), faces, embedding=embedding)
            if take is not None:
                take(record, error)
            elif not error:
                click.echo(dumps(record).encode())
    if target is not None:
        seconds = time.perf_counter() - began
        click.echo(f"{count} faces of {done} images in {display(target)} ({seconds:.1f} s)", err=True)
    if not failed:
        return 0
    return 1 if done else SourceError.exit_code


def _paths(images: Sequence[str]) -> Iterator[Path]:
    """Yield the image files of the arguments in order, with folders and patterns expanded."""
    from streamgate.sources import discover

    for given in images:
        if not os.path.isdir(given) and not glob.has_magic(given):
            yield Path(given)
            continue
        found = discover([given])
        paths = [
            path for spec in found.sources if spec.root is not None for path in spec.paths if isinstance(path, Path)
        ]
        # A folder without images fails like a file that is not an image.
        yield from paths or [Path(given)]


def _read_image(path: Path, max_pixels: int) -> Array:
    """RGB uint8 (H, W, 3), upright. Raises SourceError."""
    from streamgate.sources.images import read_rgb

    if not os.path.exists(path):
        raise SourceError(f"{display(path)}: no such file; check the path")
    try:
        return read_rgb(path, max_pixels)
    except SourceError as error:
        raise SourceError(f"{display(path)}: {error}; for videos, use `streamgate run`") from None


def _name_of(path: Path, taken: set[str]) -> str:
    """A base name for the maps of an image: the image's name, extended by its folder's name or by a number if the
    name is `taken`."""
    candidates = [path.stem, f"{path.absolute().parent.name}-{path.stem}"]
    candidates += [f"{path.stem}-{number}" for number in range(2, len(taken) + 3)]
    # Names are compared without regard to case, because many file systems are case-insensitive.
    name = next(name for name in candidates if name.casefold() not in taken)
    taken.add(name.casefold())
    return name


def _write_heatmaps(
    folder: Path, name: str, image: Array, faces: Sequence[ScoredFace], aligned: str | None
) -> None:
    """Write one PNG per face and map: the aligned face, and next to it the same face overlaid with the map."""
    import cv2

    from streamgate.store.files import write_bytes

    for number, face in enumerate(faces, 1):
        crop = image if aligned == "ffhq" else face.image
        maps = {"": face.ifqa_map, **{f"_{measure}": one for measure, one in face.maps.items()}}
        for ending, one in maps.items():
            if one is None or crop is None:
                continue
            target = folder / f"{name}_{number}{ending}.png"
            done, data = cv2.imencode(".png", cv2.cvtColor(_overlay(crop, one), cv2.COLOR_RGB2BGR))
            if not done:
                raise SinkError(f"{target}: the picture cannot be encoded")
            write_bytes(folder, target.name, data.tobytes())


def _overlay(crop: Array, ifqa_map: Array) -> Array:
    """The crop, and next to it the crop overlaid with its map: RGB uint8 (256, 512, 3).

    The colours run from red (0) through yellow to green (1, clean and real).
    """
    import cv2
    import numpy as np

    face = cv2.resize(crop, (256, 256), interpolation=cv2.INTER_AREA)
    level = np.clip(cv2.resize(np.asarray(ifqa_map, np.float32), (256, 256)), 0.0, 1.0)[..., None]
    colour = np.concatenate([np.minimum(1, 2 * (1 - level)), np.minimum(1, 2 * level), 0 * level], axis=2) * 255
    grey = cv2.cvtColor(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.hstack([face, np.clip(0.55 * grey + 0.45 * colour, 0, 255).astype(np.uint8)])
