"""`streamgate clips`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command
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
    from streamgate.config import Config
    from streamgate.gate import Gate
    from streamgate.store.folder import RunFolder

@click.command(
    cls=Command,
    epilog="""
    streamgate clips faces --seconds 3               # of each track
    streamgate clips faces --per person --top-k 5    # five of each person
    streamgate clips faces --footage /mnt/archive    # moved sources
    """,
)
@results_argument
@click.option(
    "--seconds", type=click.FloatRange(0.2, 600), default=3.0, show_default=True, metavar="S", help="Length of a clip."
)
@click.option(
    "--per", type=click.Choice(["track", "person"]), default="track", show_default=True,
    help="Make clips of each track, or of each person.",
)
@click.option(
    "--top-k", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N",
    help="Number of clips per track or person.",
)
@click.option(
    "--cut", type=click.Choice(["exact", "keyframes"]), default="exact", show_default=True,
    help="exact: encode again, from any frame on. keyframes: copy, from a key frame on.",
)
@click.option(
    "--footage", multiple=True, metavar="DIR", type=PATH, shell_complete=complete_folders,
    help="Folder to search for sources that were moved. Repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace earlier clips.")
@quiet_option
@models_option
@device_option
def clips(
    out: Path,
    seconds: float,
    top_k: int,
    per: str,
    cut: str,
    footage: tuple[Path, ...],
    overwrite: bool,
    quiet: bool,
    models: str,
    device: str,
) -> int:
    """Cut the best seconds of every track in OUT out of its sources.

    Every frame of a clip passes the gate. --models must name the weights of the run.
    """
    from streamgate.clips.making import ClipMaker
    from streamgate.clips.verify import frame_scorer
    from streamgate.exports.places import adopt, new_folder
    from streamgate.gate import Gate
    from streamgate.store import files
    from streamgate.store.folder import Damages, RunFolder
    from streamgate.store.jsonlines import dumps

    damages = Damages()
    folder = RunFolder(out, damages.add)
    target = out / CLIPS
    problems = count = 0

    def problem(text: str) -> None:
        nonlocal problems
        problems += 1
        click.echo(f"streamgate: {escaped(text)}", err=True)

    with (
        Gate(models=models, device=device, config=_config(folder)) as gate,
        new_folder(target, "clips", overwrite=overwrite) as staging,
        files.sink_errors(target),
    ):
        _refuse_other_weights(folder, gate)
        maker = ClipMaker(
            folder, frame_scorer(gate), seconds=seconds, top_k=top_k, per=per, cut=cut, footage=footage,
            staging=staging, problem=problem,
        )  # fmt: skip
        with open(staging / "clips.jsonl", "xb") as lines:
            for record in maker.clips():
                lines.write(dumps(record).encode() + b"\n")
                count += 1
        if problems and (not count or target.exists()):
            stay = "; earlier clips stay" if target.exists() else ""
            raise SourceError(f"{display(out)}: not every source could be cut{stay}")
    for text in damages.words:
        problem(f"{display(out)}: {text}")
    written = [path for path in target.rglob("*") if path.is_file()] + [target / RECEIPT]
    adopt(out, {path.relative_to(out).as_posix() for path in written})
    if not quiet:
        click.echo(f"{count} clip{'' if count == 1 else 's'} in {display(target)}", err=True)
        if maker.pictures:
            text = f"{len(maker.pictures)} source(s) of pictures skipped: clips are cut from video files only"
            click.echo(text, err=True)
        if maker.without:
            click.echo(_without(maker.without, seconds, per, cut), err=True)
    return 1 if problems else 0


def _without(names: Sequence[str], seconds: float, per: str, cut: str) -> str:
    start = " from a key frame on" if cut == "keyframes" else ""
    whose = "person" if per == "person" else "track"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (
        f"{len(names)} {whose}{'' if len(names) == 1 else 's'} without {seconds:g} s{start} in which every "
        f"frame passes the gate: {', '.join(names[:5])}{more}"
    )


def _config(folder: RunFolder) -> Config:
    from pydantic import ValidationError

    from streamgate.config import Config

    try:
        return Config.model_validate(folder.summary["config"])
    except ValidationError:
        raise ResultsError(
            f"{display(folder.out)}: its configuration is of another version of streamgate; use that version, "
            "or run the sources again"
        ) from None


def _refuse_other_weights(folder: RunFolder, gate: Gate) -> None:
    before = {one["role"]: one["sha256"] for one in folder.summary["weights"]}
    now = {one["role"]: one["sha256"] for one in gate.run_info().weights}
    if before != now:
        roles = before.keys() | now.keys()
        differing = ", ".join(sorted(str(role) for role in roles if before.get(role) != now.get(role)))
        raise UsageError(
            f"{display(folder.out)} was made with other weights ({differing}); give the --models of that run"
        )
