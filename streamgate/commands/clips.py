"""`streamgate clips`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command, section
from streamgate.commands.options import (
    PATH,
    complete_folders,
    device_option,
    models_option,
    quiet_option,
    results_argument,
)
from streamgate.errors import ResultsError, SourceError, UsageError, display, escaped
from streamgate.store.layout import CLIPS, RECEIPT

if TYPE_CHECKING:
    from streamgate.clips.recipe import Recipe
    from streamgate.config import Config
    from streamgate.engine import Engine
    from streamgate.measures import MeasureSpec
    from streamgate.store.folder import RunFolder

_which = section("Which clips")
_picture = section("What is written")


def _share(text: str) -> float:
    """Convert a share, such as 0.05 or 5%, to a number from 0 to 1."""
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)(%?)", text.replace(" ", ""))
    share = float(found[1]) / (100 if found[2] else 1) if found else 2.0
    if share > 1:
        raise click.BadParameter(f"{text!r} is not a share; write, for example, 5% or 0.05")
    return share


@click.command(
    cls=Command,
    epilog="""
    streamgate clips faces                                  # one per track
    streamgate clips faces --preset latentsync -o dataset   # cropped, 25 fps
    streamgate clips faces --seconds 3 --crop face --fps 25 # three seconds each
    streamgate clips faces --top-k 100 --max-seconds 20     # up to 100 per track
    streamgate clips faces --per person --top-k 5           # five per person
    streamgate clips faces --max-bad 10% --set measures.yaw.max=30
    streamgate clips faces --footage /mnt/archive           # moved sources
    """,
)
@results_argument
@_which(
    "--preset", default="talking", show_default=True, metavar="NAME|FILE",
    help="Requirements for a clip: talking, strict, talkvid, latentsync, vfhq, hdtf, or a TOML file.",
)
@_which("--seconds", type=click.FloatRange(0.2, 600), metavar="S", help="Length of each clip.")
@_which("--min-seconds", type=click.FloatRange(0.2, 600), metavar="S", help="Minimum length of a clip.")
@_which("--max-seconds", type=click.FloatRange(0.2, 600), metavar="S", help="Maximum length of a clip.")
@_which(
    "--max-bad", type=_share, metavar="SHARE",
    help="Share of a clip's frames that may be outside the limits, such as 5% or 0.05.",
)
@_which(
    "--per", type=click.Choice(["track", "person"]), default="track", show_default=True,
    help="Make clips of each track, or of each person.",
)
@_which(
    "--top-k", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N",
    help="Number of clips per track or person.",
)
@_which(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Set a key of the preset (clip.blink_s=0.3) or a per-frame limit (measures.yaw.max=30). Repeatable.",
)
@_which(
    "--footage", multiple=True, metavar="DIR", type=PATH, shell_complete=complete_folders,
    help="Folder to search for source files that were moved. Repeatable.",
)
@_picture(
    "-o", "--output", "target", metavar="DIR", type=PATH, shell_complete=complete_folders,
    help="Folder for the clips. [default: OUT/clips]",
)
@_picture("--overwrite", is_flag=True, help="Replace earlier clips in the output folder.")
@_picture(
    "--crop", type=click.Choice(["none", "face"]), help="face: an upright square that follows the face smoothly."
)
@_picture("--size", type=click.IntRange(64, 2048), metavar="PX", help="With --crop face: width and height of the clip.")
@_picture("--fps", type=click.FloatRange(1, 120), metavar="FPS", help="Frame rate. [default: as in the source]")
@_picture(
    "--audio", type=click.Choice(["copy", "wav16k", "none"]),
    help="wav16k: also write the sound next to each clip, as mono 16 kHz WAV.",
)
@_picture(
    "--cut", type=click.Choice(["exact", "keyframes"]), default="exact", show_default=True,
    help="exact: re-encode the video, starting at any frame. keyframes: copy the video, starting at a key frame.",
)
@quiet_option
@models_option
@device_option
def clips(
    out: Path,
    preset: str,
    seconds: float | None,
    min_seconds: float | None,
    max_seconds: float | None,
    max_bad: float | None,
    settings: tuple[str, ...],
    top_k: int,
    per: str,
    target: Path | None,
    crop: str | None,
    size: int | None,
    fps: float | None,
    audio: str | None,
    cut: str,
    footage: tuple[Path, ...],
    overwrite: bool,
    quiet: bool,
    models: str,
    device: str,
) -> int:
    """For every track in OUT, cut its best seconds out of the original video as clips for training.

    Every frame of a clip is scored; a table next to each clip has the scores. --models must name the weights that
    the run used.
    """
    from streamgate.clips.recipe import load_recipe

    if seconds is not None and (min_seconds is not None or max_seconds is not None):
        raise UsageError(
            "--seconds sets the length of each clip: leave it out, or leave out --min-seconds and --max-seconds"
        )
    recipe = load_recipe(
        preset,
        settings,
        {
            **_lengths(preset, settings, seconds or min_seconds, seconds or max_seconds),
            "clip.max_bad": max_bad,
            "picture.crop": crop,
            "picture.size": size,
            "picture.fps": fps,
            "picture.audio": audio,
        },
    )
    if cut == "keyframes" and recipe.picture.rendered:
        raise UsageError(
            "--cut keyframes copies the video as it is: leave out --crop and --fps, and choose a preset that sets "
            "neither"
        )
    return _make(
        out, target or out / CLIPS, recipe, top_k, per, cut, footage, overwrite=overwrite, quiet=quiet, models=models,
        device=device,
    )  # fmt: skip


def _lengths(
    preset: str, settings: tuple[str, ...], least: float | None, most: float | None
) -> dict[str, float | None]:
    """The lengths given by options.

    If only one length is given and it contradicts the preset's other length, both are set to the given one.
    """
    from streamgate.clips.recipe import load_recipe

    clip = load_recipe(preset, settings).clip
    if least is not None and most is None and least > clip.max_seconds:
        most = least
    if most is not None and least is None and most < clip.min_seconds:
        least = most
    return {"clip.min_seconds": least, "clip.max_seconds": most}


def _make(
    out: Path,
    target: Path,
    recipe: Recipe,
    top_k: int,
    per: str,
    cut: str,
    footage: tuple[Path, ...],
    *,
    overwrite: bool,
    quiet: bool,
    models: str,
    device: str,
) -> int:
    from streamgate.clips.frame_scoring import frame_scorer
    from streamgate.clips.maker import ClipMaker
    from streamgate.clips.table import has_pyarrow
    from streamgate.commands.progress import Display, show_track
    from streamgate.engine import Engine
    from streamgate.exports.targets import adopt, new_folder
    from streamgate.store import files
    from streamgate.store.folder import DamageLog, RunFolder
    from streamgate.store.jsonlines import dumps

    damages = DamageLog()
    folder = RunFolder(out, damages.add)
    problems = count = 0
    seconds = 0.0
    with Display("error" if quiet else "info") as shown:

        def problem(text: str) -> None:
            nonlocal problems
            problems += 1
            shown.error(text)

        config = _config(folder)
        with (
            Engine(config, models=models, device=device) as engine,
            new_folder(target, "clips", overwrite=overwrite) as staging,
            files.sink_errors(target),
        ):
            _refuse_other_weights(folder, engine)
            maker = ClipMaker(
                folder, frame_scorer(engine, recipe.over(config)), recipe, top_k=top_k, per=per, cut=cut,
                footage=footage, staging=staging, problem=problem, report=partial(show_track, shown),
            )  # fmt: skip
            with open(staging / "clips.jsonl", "xb") as lines:
                for record in maker.clips():
                    lines.write(dumps(record).encode() + b"\n")
                    count += 1
                    seconds += record["end_seconds"] - record["start_seconds"]
            if problems and (not count or target.exists()):
                stay = "; the earlier clips are kept" if target.exists() else ""
                raise SourceError(f"{display(out)}: clips could not be cut from all sources{stay}")
        shown.stop()
        for text in damages.words:
            problem(f"{display(out)}: {text}")
        if target.resolve().is_relative_to(out.resolve()):
            written = [path for path in target.rglob("*") if path.is_file()] + [target / RECEIPT]
            root = out.resolve()
            adopt(out, {path.resolve().relative_to(root).as_posix() for path in written})
        shown.line(f"{count} clip{'' if count == 1 else 's'}, {seconds:.1f} s, in {display(target)}")
        if maker.pictures:
            shown.line(f"{len(maker.pictures)} image source(s) skipped: clips are cut from video files only")
        if maker.without:
            shown.line(_without(maker.without, folder.measures, recipe.clip.min_seconds, per, cut))
        if count and not has_pyarrow():
            shown.line("no tables were written, because pyarrow is not installed: pip install 'streamgate[data]'")
    return 1 if problems else 0


def _without(
    found: Mapping[str, str], specs: Sequence[MeasureSpec], seconds: float, per: str, cut: str
) -> str:
    from streamgate.measures.vocabulary import reason_words

    words = {**reason_words(specs), **_FAULTS}
    start = " starting at a key frame" if cut == "keyframes" else ""
    whose = "person" if per == "person" else "track"
    named = [f"{name} ({words.get(why, why)})" if why else name for name, why in list(found.items())[:5]]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return (
        f"{len(found)} {whose}{'' if len(found) == 1 else 's'} without a good enough clip of at least "
        f"{seconds:g} s{start}: {escaped(', '.join(named))}{more}"
    )


_FAULTS = {
    "no_face": "the face is not found in every frame",
    "head_jitter": "the head jitters",
    "camera_jitter": "the camera shakes",
    "movement": "the head moves too fast",
    "rotation": "the head turns too fast",
}


def _config(folder: RunFolder) -> Config:
    from pydantic import ValidationError

    from streamgate.config import Config

    try:
        return Config.model_validate(folder.summary["config"])
    except ValidationError:
        raise ResultsError(
            f"{display(folder.out)}: its configuration was written by another version of streamgate; use that "
            "version, or run the sources again"
        ) from None


def _refuse_other_weights(folder: RunFolder, engine: Engine) -> None:
    before = {one["role"]: one["sha256"] for one in folder.summary["weights"]}
    now = {one["role"]: one["sha256"] for one in engine.run_info().weights}
    if before != now:
        roles = before.keys() | now.keys()
        differing = ", ".join(sorted(str(role) for role in roles if before.get(role) != now.get(role)))
        raise UsageError(
            f"{display(folder.out)} was made with different weights ({differing}); give the weights of the run "
            "with --models"
        )
