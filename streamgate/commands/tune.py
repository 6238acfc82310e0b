"""`streamgate tune`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command, section
from streamgate.commands.options import (
    PATH,
    complete_folders,
    complete_models,
    complete_presets,
    device_option,
    max_yaw_option,
    min_size_option,
    results_argument,
)
from streamgate.errors import display, escaped

if TYPE_CHECKING:
    from rich.table import Table

    from streamgate.tuning.tune import TuneResult

_faces = section("Which faces are kept")
_footage = section("Footage")
_networks = section("Settings and networks")


@click.command(
    cls=Command,
    epilog="""
    streamgate tune faces --max-yaw 20 --dry-run    # what would change
    streamgate tune faces --max-yaw 20
    streamgate tune faces --set measures.ifqa.weight=0.5
    streamgate tune faces --preset mine.toml        # from `streamgate fit`
    """,
)
@results_argument
@click.option("--dry-run", "dry", is_flag=True, help="Only show what would change; footage is still read if necessary.")
@_faces("--top-k", type=int, metavar="N", help="Number of best faces to keep per track.")
@min_size_option
@max_yaw_option
@_faces(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Set a key of the section [measures], [keep] or [smoothing], for example measures.yaw.max=20. Repeatable.",
)
@_faces(
    "--preset", metavar="NAME|FILE", shell_complete=complete_presets,
    help="Preset to apply, for example one from `streamgate fit`; only its sections [measures], [keep] and [smoothing] "
    "are used.",
)
@_footage("--pictured", is_flag=True, help="Do not open the footage; choose only among faces with pictures in OUT.")
@_footage(
    "--footage", multiple=True, metavar="DIR", type=PATH, shell_complete=complete_folders,
    help="Folder to search for source files that were moved. Repeatable.",
)
@_networks(
    "--models", metavar="SET[,SET]", shell_complete=complete_models,
    help="Weights that the run used. [default: the weights whose sha256 is in the results]",
)
@device_option
def tune(
    out: Path,
    settings: tuple[str, ...],
    top_k: int | None,
    min_size: float | None,
    max_yaw: float | None,
    preset: str | None,
    footage: tuple[Path, ...],
    models: str | None,
    device: str,
    dry: bool,
    pictured: bool,
) -> int:
    """Apply changed limits to the results in OUT without decoding everything again.

    The gate and the selection are applied again to all stored faces. The footage is opened only if a newly selected
    face was never fully scored or has no picture.
    """
    from rich.console import Console
    from rich.markup import escape

    from streamgate.measures.vocabulary import reason_words
    from streamgate.store.folder import RunFolder
    from streamgate.store.layout import REPORT
    from streamgate.tuning.tune import tune as tune_folder

    began = time.perf_counter()
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=160)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    with errors.status("") as status:
        result = tune_folder(
            out, settings, {"keep.top_k": top_k, "measures.size.min": min_size, "measures.yaw.max": max_yaw},
            preset=preset, folders=footage, models=models, device=device, dry=dry, pictured=pictured,
            report=lambda done, total: status.update(f"source {done + 1} of {total}"),
        )  # fmt: skip
    if not result.changed:
        console.print("the results already have these settings; nothing was changed")
        return 0
    console.print(_table(result, reason_words(RunFolder(out).measures)), soft_wrap=False)
    console.print(_words(result))
    if result.after.kept > result.before.kept and _is_stricter(result):
        console.print(
            "More faces are kept although the limit is stricter: a best face that is now rejected may be replaced by "
            "several others, which had been dropped as too close to that face in time or appearance, or had not been "
            "scored."
        )
    if not result.same_meaning:
        console.print("Quality is now computed differently: do not compare it with earlier values.")
    for problem in result.left_out:
        errors.print(f"[red]streamgate:[/red] {escape(escaped(problem))}. The results of this source are unchanged")
    for problem in result.problems:
        errors.print(f"[yellow]streamgate: warning:[/yellow] {escape(escaped(problem))}")
    changed = escape(", ".join(_settings(result)))
    if dry:
        console.print(f"these would be the results with {changed}; nothing was changed (--dry-run)")
    else:
        seconds = time.perf_counter() - began
        console.print(f"the results in {escape(display(out))} now have the settings {changed} ({seconds:.1f} s)")
        if (out / REPORT).is_file():
            console.print(f"report: {escape(display(out / REPORT))}")
    return 1 if result.left_out else 0


def _settings(result: TuneResult) -> list[str]:
    """The changed settings as `key = value (was value)`."""
    shown = {key: [json.dumps(value) for value in values] for key, values in result.changed.items()}
    return [f"{key} = {now} (was {was})" for key, (was, now) in shown.items()]


def _is_stricter(result: TuneResult) -> bool:
    limits = {key: values for key, values in result.changed.items() if None not in values}
    lower = [key for key, (was, now) in limits.items() if key.endswith(".max") and now < was]
    higher = [key for key, (was, now) in limits.items() if key.endswith(".min") and now > was]
    # If other keys changed too, they may be the reason why more faces are kept.
    return bool(lower or higher) and len(lower) + len(higher) == len(result.changed)


def _table(result: TuneResult, words: Mapping[str, str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "before", "after", "change"):
        table.add_column(name, justify="left" if not name else "right")
    before, after = result.before, result.after

    def row(name: str, one: int, other: int) -> None:
        table.add_row(name, str(one), str(other), f"{other - one:+d}" if other != one else "")

    row("faces kept", before.kept, after.kept)
    row("tracks without a kept face", before.tracks_without, after.tracks_without)
    reasons = {*before.rejected, *after.rejected}
    for name in sorted(reasons, key=lambda name: (-max(before.rejected[name], after.rejected[name]), name)):
        row(f"rejected: {words.get(name, name)}", before.rejected[name], after.rejected[name])
    return table


def _words(result: TuneResult) -> str:
    after = result.after
    parts = [
        f"{count} track{'' if count == 1 else 's'} {what}"
        for count, what in (
            (after.other, "with different faces"), (after.gained, "gained a face"), (after.lost, "lost all faces"),
        )
        if count
    ]  # fmt: skip
    text = ", ".join(parts) or "the same faces are kept"
    if after.looked:
        faces = f"{after.looked} face{'' if after.looked == 1 else 's'}"
        text += f"; {faces} scored in the footage"
    return text
