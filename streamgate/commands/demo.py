"""`streamgate demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.run import RunRequest, run_command
from streamgate.errors import UsageError
from streamgate.runtime.processes import apart
from streamgate.store.files import sink_errors

if TYPE_CHECKING:
    from streamgate.frames import Array

CLIP = "astronaut.mp4"


def demo_command(out: Path, models: str, device: str, quiet: bool) -> int:
    """Render the demo clip into `out`, run the gate over it there, and say where to look; returns the exit code.

    Results of an earlier demo in `out` are replaced. Raises StreamgateError.
    """
    clip = out / CLIP
    # The run forks its worker, and a process that has encoded a clip has too many threads for that.
    apart(lambda: _render(clip, quiet))
    request = RunRequest(
        inputs=(str(clip),), out=out, flags={}, overwrite=True, quiet=quiet, device=device, models=models
    )
    code = run_command(request)
    report = out / "report.html"
    if code == 0:
        click.echo(f"clip:   {clip}")
        click.echo(f"faces:  {out / 'faces.jsonl'}")
        if report.is_file():
            click.echo(f"report: {report.resolve().as_uri()}")
    return code


def _render(clip: Path, quiet: bool) -> None:
    """Write the clip. Raises UsageError where the folder holds results of something else, SinkError."""
    from streamgate.demo import SECONDS, write_demo_clip
    from streamgate.store.manifest import Manifest

    portrait = _portrait()
    out = clip.parent
    earlier = Manifest.read(out / ".streamgate").sources
    if any(not source_id.startswith(f"{clip.stem}-") for source_id in earlier):
        raise UsageError(f"{out} holds results of `streamgate run`; choose another folder for the demo with -o")
    if not quiet:
        click.echo(f"rendering a {SECONDS} s clip from scikit-image's portrait of an astronaut ...", err=True)
    with sink_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        write_demo_clip(clip, portrait)


def _portrait() -> Array:
    """RGB uint8 (512, 512, 3). Raises UsageError without scikit-image."""
    try:
        from skimage import data
    except ImportError:
        raise UsageError(
            "the demo's portrait comes with scikit-image, which is not installed; run pip install 'streamgate[demo]'"
        ) from None
    return data.astronaut()
