"""`streamgate demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command
from streamgate.commands.options import PATH, complete_folders, device_option, models_option
from streamgate.errors import UsageError, display

if TYPE_CHECKING:
    from streamgate.frames import Array

CLIP = "astronaut.mp4"


@click.command(cls=Command, epilog="streamgate demo -o somewhere")
@click.option(
    "-o", "--out", type=PATH, default="streamgate-demo", show_default=True, metavar="DIR",
    shell_complete=complete_folders, help="Folder for the clip and the results.",
)
@click.option("--quiet", is_flag=True, help="Print only errors and the paths of the results.")
@models_option
@device_option
def demo(out: Path, models: str, quiet: bool, device: str) -> int:
    """Try streamgate without a video: render a clip from a portrait and run the gate on it.

    The results of an earlier demo in the same folder are replaced.
    """
    from streamgate.commands.messages import RunRequest
    from streamgate.commands.parent import run_with_worker
    from streamgate.runtime.processes import run_in_process

    clip = out / CLIP
    # Rendered in another process, because encoding starts threads and the run forks its worker from this process.
    run_in_process(lambda: _render(clip, quiet))
    code = run_with_worker(
        RunRequest(
            inputs=(str(clip),), out=out, flags={}, overwrite=True, log_level="error" if quiet else "info",
            device=device, models=models,
        )
    )
    report = out / "report.html"
    if code == 0:
        click.echo(f"clip:   {display(clip)}")
        click.echo(f"faces:  {display(out / 'faces.jsonl')}")
        if report.is_file():
            click.echo(f"report: {report.resolve().as_uri()}")
    return code


def _render(clip: Path, quiet: bool) -> None:
    """Write the clip. Raises SinkError, or UsageError if the folder holds results of another run."""
    from streamgate.demo import SECONDS, write_demo_clip
    from streamgate.store.files import sink_errors
    from streamgate.store.manifest import Manifest

    portrait = _portrait()
    out = clip.parent
    earlier = Manifest.read(out).sources
    if any(not source_id.startswith(f"{clip.stem}-") for source_id in earlier):
        raise UsageError(f"{out} holds results of `streamgate run`; choose another folder for the demo with -o")
    if not quiet:
        click.echo(f"rendering a {SECONDS} s clip from scikit-image's portrait of an astronaut ...", err=True)
    with sink_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        write_demo_clip(clip, portrait)


def _portrait() -> Array:
    """The portrait, RGB uint8 (512, 512, 3). Raises UsageError if scikit-image is not installed."""
    try:
        from skimage import data
    except ImportError:
        raise UsageError(
            "the portrait for the demo is part of scikit-image, which is not installed: pip install 'streamgate[demo]'"
        ) from None
    return data.astronaut()
