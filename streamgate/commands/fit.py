"""`streamgate fit`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command, section
from streamgate.commands.options import PATH, complete_folders, complete_models, device_option
from streamgate.errors import UsageError, display, escaped

if TYPE_CHECKING:
    from rich.table import Table

    from streamgate.labels import FaceKey
    from streamgate.tuning.preset_fit import FittedPreset, LabelAgreement

_footage = section("Footage")
_networks = section("Networks")


@click.command(
    cls=Command,
    epilog="""
    streamgate fit faces --labels labels.csv -o mine.toml
    streamgate tune faces --preset mine.toml      # select again with mine.toml
    streamgate run videos/ --preset mine.toml
    """,
)
@click.argument("outs", metavar="OUT...", nargs=-1, required=True, type=PATH, shell_complete=complete_folders)
@click.option("--labels", "labels_files", multiple=True, required=True, metavar="FILE", type=PATH,
              help="File of labels, from `streamgate label` or the report. Repeatable.")  # fmt: skip
@click.option("-o", "--output", "target", required=True, metavar="FILE", type=PATH, help="New preset file (*.toml).")
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@_footage(
    "--footage", multiple=True, metavar="DIR", type=PATH, shell_complete=complete_folders,
    help="Folder to search for source files that were moved. Repeatable.",
)
@_networks(
    "--models", metavar="SET[,SET]", shell_complete=complete_models,
    help="Weights that the run used. [default: the weights whose sha256 is in the results]",
)
@device_option
def fit(
    outs: tuple[Path, ...],
    labels_files: tuple[Path, ...],
    target: Path,
    overwrite: bool,
    footage: tuple[Path, ...],
    models: str | None,
    device: str,
) -> int:
    """Fit a preset to faces that people labelled good, usable or bad.

    The preset starts from the measures' weights, mappings and limits in OUT, and changes only what the labels require.
    The agreement after fitting is measured on sources that the fit did not use.
    """
    from rich.console import Console

    from streamgate.labels import BAD, GOOD, USABLE
    from streamgate.store.files import sink_errors, write_text
    from streamgate.tuning.labelled import labelled_faces
    from streamgate.tuning.preset_fit import changes, fit_preset, toml_text

    if target.suffix != ".toml":
        raise UsageError(f"{display(target)}: the name of a preset file must end with .toml")
    if target.exists() and not overwrite:
        raise UsageError(f"{display(target)} exists; choose another name, or give --overwrite")
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=160)
    labels = _labels(labels_files)
    with errors.status("") as status:
        tuning, specs, judged, unused = labelled_faces(
            outs, labels, folders=footage, models=models, device=device,
            report=lambda words: status.update(f"reading {escaped(words)}"),
        )  # fmt: skip
        for words, count in unused.items():
            errors.print(f"streamgate: warning: {_count(count, 'label')} not used: {escaped(words)}", markup=False)
        status.update("fitting")
        fitted = fit_preset(tuning, specs, judged)
    for words in fitted.warnings:
        errors.print(f"streamgate: warning: {words}", markup=False)
    counts = [int((judged.grades == grade).sum()) for grade in (GOOD, USABLE, BAD)]
    faces = (
        f"{_count(len(judged.grades), 'labelled face')} of {_count(len(set(judged.tracks)), 'track')} in "
        f"{_count(len(set(judged.clips)), 'source')}: {counts[0]} good, {counts[1]} usable, {counts[2]} bad"
    )
    console.print(faces)
    console.print(_table(fitted), soft_wrap=False)
    report = changes(specs, fitted) or ["none: no settings near the current ones agree better with the labels"]
    console.print("\nchanges")
    for line in report:
        console.print(f"  {line}", markup=False)
    with sink_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target.parent, target.name, toml_text(fitted.config, [f"Fitted to {faces}.", *report]))
    written = display(target)
    console.print(f"\nwrote {written}; to apply it: streamgate tune OUT --preset {written}", markup=False)
    return 0


def _labels(files: tuple[Path, ...]) -> dict[FaceKey, int]:
    """The labels of all files. A face with different labels in two files is left out. Raises SourceError."""
    from streamgate.labels import read_labels

    found: dict[FaceKey, int] = {}
    torn: set[FaceKey] = set()
    for file in files:
        labels, problems = read_labels(file)
        torn |= {key for key in labels.keys() & found.keys() if labels[key] != found[key]}
        found |= labels
        for words in problems[:_MAX_LISTED]:
            click.echo(f"streamgate: warning: {display(file)}, {escaped(words)}; left out", err=True)
        if len(problems) > _MAX_LISTED:
            more = _count(len(problems) - _MAX_LISTED, "more row")
            click.echo(f"streamgate: warning: {display(file)}: {more} left out", err=True)
    for key in torn:
        click.echo(f"streamgate: warning: {key} has different labels in two files and is left out", err=True)
    return {key: grade for key, grade in found.items() if key not in torn}


_MAX_LISTED = 5


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _table(fitted: FittedPreset) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("agreement with the labels")
    table.add_column("before", justify="right")
    table.add_column("fitted, on unseen sources", justify="right")
    before, after = fitted.before, fitted.after

    def row(name: str, *values: str) -> None:
        table.add_row(name, *values)

    def both(tell: Callable[[LabelAgreement], str]) -> tuple[str, str]:
        return tell(before), tell(after) if after is not None else "-"

    row("pairs within a track in the right order", *both(lambda one: _percent(one.ordered)))
    row("good faces above bad ones, over all tracks", *both(lambda one: _percent(one.auc)))
    total = before.good + before.usable + before.bad + before.none
    row(f"{total} tracks with a good face: good face kept", *both(lambda one: str(one.good)))
    row("  usable face kept", *both(lambda one: str(one.usable)))
    row("  bad face kept", *both(lambda one: str(one.bad)))
    row("  no face kept", *both(lambda one: str(one.none)))
    for index, word in enumerate(("good", "usable", "bad")):
        row(f"{word} faces within all limits", *(
            "-" if one is None else _percent(one.passed[index]) for one in (before, after)
        ))  # fmt: skip
    return table


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"
