"""`streamgate models`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import DownloadColumn, Progress, TextColumn
from rich.table import Table

from streamgate.errors import WeightsError
from streamgate.zoo import ModelState, import_weights, list_models, models_folder, pull, verify
from streamgate.zoo import Progress as PullStep
from streamgate.zoo.importing import MIN_FACES, calibration_words


def list_command(as_json: bool) -> int:
    """Print all known weights; exit code 0."""
    states = list_models()
    if as_json:
        rows = [dataclasses.asdict(state) | {"path": state.path and str(state.path)} for state in states]
        click.echo(json.dumps(rows, indent=2))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("weights", "role", "in use", "tier", "state", "MB", "licence", "trained on"):
        table.add_column(name, justify="right" if name == "MB" else "left", overflow="fold")
    for state in states:
        table.add_row(
            state.name,
            ", ".join(state.roles),
            _use(state),
            state.tier,
            state.state,
            f"{state.size / 1e6:.1f}",
            state.licence,
            state.training_data,
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
    console.print(f"models folder: {models_folder()}", soft_wrap=True)
    return 0


def _use(state: ModelState) -> str:
    """`yes`, the roles in use where these weights could fill others too, or nothing."""
    return "yes" if state.in_use == state.roles else ", ".join(state.in_use)


def pull_command(tier: str, mirror: str | None, quiet: bool) -> int:
    """Make a tier's weights ready; exit code 0. Raises WeightsError."""
    console = Console(stderr=True, quiet=quiet)
    with Progress(
        TextColumn("{task.description}"),
        DownloadColumn(),
        console=console,
        transient=True,
        # Where nobody can see it move, it would leave an empty line.
        disable=quiet or not console.is_terminal,
    ) as bar:
        tasks: dict[str, int] = {}

        def show(step: PullStep) -> None:
            if step.phase == "convert":
                console.print(f"converting {step.name} to ONNX")
                return
            if step.file not in tasks:
                tasks[step.file] = bar.add_task(step.file, total=step.total)
                if not console.is_terminal:
                    console.print(f"downloading {step.file} ({step.total / 1e6:.1f} MB)")
            bar.update(tasks[step.file], completed=step.done)  # type: ignore[arg-type]

        done = pull(tier, mirror, show)
    for one in done:
        console.print(f"{one.name}: {one.action}")
    return 0


def import_command(file: str, name: str | None, calibrate: str | None, licence: str | None, quiet: bool) -> int:
    """Convert a user's own checkpoint; exit code 0. Raises UsageError, WeightsError."""
    console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    options = {} if licence is None else {"licence": licence}
    made = import_weights(
        Path(file),
        name=name,
        calibrate=None if calibrate is None else Path(calibrate),
        report=lambda text: console.print(escape(text)),
        **options,
    )
    console.print(f"{escape(made.name)}: {made.title} ({made.role}), sha256 {made.sha256}")
    if made.calibration is not None:
        console.print(f"calibration: {calibration_words(made.calibration)} ({made.fit})")
    elif made.role != "detector":
        console.print(
            "not calibrated: its measure will be left out of quality; give --calibrate FOLDER with "
            f"{MIN_FACES} faces or more that nothing is evaluated on"
        )
    console.print("use it with --models imported")
    return 0


def verify_command() -> int:
    """Hash all weights; exit code 0, or 4 when something is wrong or nothing is there."""
    results = verify()
    for one in results:
        click.echo(f"{'ok    ' if one.ok else 'WRONG '} {one.tier:9} {one.name}: {one.path if one.ok else one.detail}")
    if not results:
        click.echo("no weights here; run `streamgate models pull`", err=True)
    return 0 if results and all(one.ok for one in results) else WeightsError.exit_code
