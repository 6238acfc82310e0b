"""`streamgate models`."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Group
from streamgate.commands.options import PATH, complete_folders, device_option, quiet_option
from streamgate.errors import UsageError, WeightsError, escaped

if TYPE_CHECKING:
    from streamgate.weights import ModelState


WIDTH = 100
"""Columns of `models list`."""


@click.group(
    cls=Group,
    epilog="""
    streamgate models list
    streamgate models pull && streamgate run video.mp4 --models standard
    streamgate models import Resnet50_Final.pth
    """,
)
def models() -> None:
    """List, pull, import or verify weights."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> int:
    """Show all known weights with their licences; --json also shows what they were trained on."""
    from streamgate.weights import list_models, models_folder

    states = list_models()
    if as_json:
        rows = [dataclasses.asdict(state) | {"path": state.path and str(state.path)} for state in states]
        click.echo(json.dumps(rows, indent=2))
        return 0
    lines = [("weights", "role", "in use", "tier", "state", "MB")]
    for state in states:
        name, size = escaped(state.name), f"{state.size / 1e6:.1f}"
        lines.append((name, ", ".join(state.roles), _use(state), state.tier, state.state, size))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, row in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        click.echo("  ".join([*cells, row[-1].rjust(widths[-1])]))
        if number:
            terms = escaped(states[number - 1].licence)
            click.echo(textwrap.fill(terms, WIDTH, initial_indent="    ", subsequent_indent="    "))
    click.echo("what the weights were trained on: streamgate models list --json")
    click.echo(f"models folder: {models_folder()}")
    return 0


def _use(state: ModelState) -> str:
    """`yes` if the weights are used for all their roles; otherwise the roles they are used for, possibly none."""
    return "yes" if state.in_use == state.roles else ", ".join(state.in_use)


@models.command()
@click.argument("tier", default="standard")
@click.option(
    "--mirror", metavar="URL|DIR", help="URL or folder to get the files from. [env: STREAMGATE_MIRROR]"
)
@quiet_option
def pull(tier: str, mirror: str | None, quiet: bool) -> int:
    """Download, verify and convert the weights of TIER.

    TIER is one of standard, liveness (for the measure `live`) and measures (the parameters of NIQE and BRISQUE).
    """
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TaskID, TextColumn

    from streamgate.convert import pull as pull_tier

    console = Console(stderr=True, quiet=quiet)
    with Progress(
        TextColumn("{task.description}"),
        DownloadColumn(),
        console=console,
        transient=True,
        # Without a terminal, a progress bar would only leave an empty line.
        disable=quiet or not console.is_terminal,
    ) as bar:
        tasks: dict[str, TaskID] = {}

        def show(file: str, done: int, size: int) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(file, total=size)
                if not console.is_terminal:
                    console.print(f"downloading {file} ({size / 1e6:.1f} MB)")
            bar.update(tasks[file], completed=done)

        actions = pull_tier(tier, mirror, console.print, show)
    for name, action in actions.items():
        console.print(f"{name}: {action}")
    return 0


@models.command("import")
@click.argument("file", metavar="FILE", type=PATH)
@click.option("--name", metavar="NAME", help="Name to install the weights under. [default: the kind of checkpoint]")
@click.option("--card", metavar="CARD", type=PATH, help="JSON file that describes FILE, if FILE is an ONNX model.")
@click.option(
    "--calibrate", metavar="FOLDER", type=PATH, shell_complete=complete_folders,
    help="Fit the mapping of raw values to 0..100, using the faces in this folder.",
)
@click.option(
    "--alpha", type=click.FloatRange(0, min_open=True), help="Published slope of SER-FIQ's sigmoid; needs --r.",
)
@click.option(
    "--r", "r", type=click.FloatRange(0, 1), help="Published midpoint of SER-FIQ's sigmoid; needs --alpha.",
)
@click.option(
    "--dropout", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Dropout rate for which --alpha and --r were published. [default: 0.5]",
)
@device_option
@click.option("--licence", metavar="TEXT", help="Licence to show in `models list`.")
@quiet_option
def import_(
    file: Path,
    name: str | None,
    card: Path | None,
    calibrate: Path | None,
    alpha: float | None,
    r: float | None,
    dropout: float | None,
    device: str,
    licence: str | None,
    quiet: bool,
) -> int:
    """Convert and install your own weights.

    FILE is either a checkpoint (retinaface-pytorch's ResNet-50, InsightFace's iresnet, MobileFaceNet, the official IFQA
    or IFQA++) or an ONNX file with a recognizer or a detector, described by --card.
    """
    from rich.console import Console
    from rich.markup import escape

    from streamgate.convert import import_weights
    from streamgate.convert.importing import MIN_FACES, PLAIN_DROP_RATE
    from streamgate.weights import SerfiqCalibration

    console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    options = {} if licence is None else {"licence": licence}
    if (alpha is None) != (r is None) or (dropout is not None and alpha is None):
        raise UsageError("--alpha and --r must be given together; --dropout requires both")
    published = None
    if alpha is not None and r is not None:
        published = SerfiqCalibration("", PLAIN_DROP_RATE if dropout is None else dropout, alpha, r)
    made = import_weights(
        file,
        name=name,
        card=card,
        calibrate=calibrate,
        published=published,
        device=device,
        report=lambda text: console.print(escape(text)),
        **options,
    )
    console.print(f"{escape(made.name)}: {', '.join(made.roles)}, sha256 {made.sha256}")
    if made.calibration is None and made.roles != ("detector",):
        console.print(
            "these weights are not calibrated, so their measure does not count for quality; to calibrate them, import "
            f"them again with --calibrate FOLDER, which must have at least {MIN_FACES} faces that are not used for "
            "evaluation"
        )
    console.print("to use these weights, give --models imported,embedded; the other roles use the embedded weights")
    return 0


@models.command()
def verify() -> int:
    """Compare the hashes of all weights with the expected ones; the exit code is 4 if any hash differs."""
    from streamgate.weights import verify as verify_all

    results = verify_all()
    for weights, damage in results:
        state = "WRONG " if damage else "ok    "
        click.echo(f"{state} {weights.tier:9} {weights.name}: {damage or weights.path}")
    if not results:
        click.echo("no weights found; run `streamgate models pull`", err=True)
    return 0 if results and not any(damage for _, damage in results) else WeightsError.exit_code
