"""The command line: parse, call, print."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from streamgate import __version__
from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import StreamgateError, UsageError, scrub

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="streamgate")
def cli() -> None:
    """The best frontal, sharp face of every person-track in your footage, with the scores that explain it."""


def _device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where networks run."
    )(command)


def _sink_retry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--sink-retry", type=click.FloatRange(0, 86400), default=30.0, show_default=True, metavar="SECONDS",
        help="How long a sink that is away or full is tried again.",
    )(command)  # fmt: skip


def _gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--set", "settings", multiple=True, metavar="KEY=VALUE",
            help="Any key of the preset, for example gate.max_yaw=20. Repeatable.",
        ),
        click.option(
            "--models", default=DEFAULT_MODELS, show_default=True, metavar="embedded|standard|imported|DIR",
            help="Weights to use.",
        ),
        click.option(
            "--preset", default="studio", show_default=True, metavar="NAME|FILE",
            help="studio, live, archive, or a TOML file of your own.",
        ),
    ):  # fmt: skip
        command = option(command)
    return _device_option(command)


@cli.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--out", default="streamgate-out", show_default=True, help="Folder for the results.")
@click.option("--top-k", type=int, metavar="N", help="Best faces kept of each track, or of what --per says.")
@click.option(
    "--per", type=click.Choice(["track", "person"]), help="Whose best faces: a person's come from all sources together."
)
@click.option("--poses", type=click.Choice(["frontal", "all"]), help="all: best faces for each bin of yaw and pitch.")
@click.option("--only", metavar="PICTURE", help="Keep nobody but the person in this picture.")
@click.option("--min-size", type=float, metavar="PX", help="Smallest face: shorter side of its box in source pixels.")
@click.option("--max-yaw", type=float, metavar="DEG", help="How far a kept face may be turned to a side.")
@click.option(
    "--crop", "crops", multiple=True, type=click.Choice(["ffhq", "arcface", "loose", "frame"]),
    help="Further pictures of each kept face, beside the FFHQ crop. Repeatable.",
)
@click.option("--format", "image_format", type=click.Choice(["png", "jpeg", "webp"]), help="Of the pictures.")
@click.option("--quality", metavar="1..100|auto", help="Of JPEG and WebP; auto: as small as harms nothing.")
@click.option(
    "--sink", "sinks", multiple=True, metavar="URL",
    help="Also send events to redis://HOST:PORT/DB, rediss://... (TLS) or unix://PATH. Repeatable.",
)
@_sink_retry_option
@click.option("--sequence", type=float, metavar="FPS", help="A folder's images are frames of a sequence.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Sources read at once.")
@click.option(
    "--decode", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Where video is decoded; auto is the CPU.",
)
@click.option(
    "--shard", metavar="I/N", help="Read only the I-th of N parts of the sources, into OUT/shards/I; see `merge`."
)
@click.option("--resume", is_flag=True, help="Go on with an earlier run in the folder: what is done is passed over.")
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run in the folder.")
@click.option("--json", "as_json", is_flag=True, help="Records of kept faces on stdout, all else on stderr.")
@click.option("--quiet", is_flag=True, help="Errors only.")
@_gate_options
def run(
    inputs: tuple[str, ...],
    out: str,
    top_k: int | None,
    per: str | None,
    poses: str | None,
    only: str | None,
    min_size: float | None,
    max_yaw: float | None,
    crops: tuple[str, ...],
    image_format: str | None,
    quality: str | None,
    sinks: tuple[str, ...],
    sink_retry: float,
    sequence: float | None,
    jobs: int,
    decode: str,
    resume: bool,
    shard: str | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    device: str,
    preset: str,
    models: str,
    settings: tuple[str, ...],
) -> None:
    """Pick the best face of every track in INPUT: video files, folders, images."""
    from streamgate.commands.run import RunRequest, run_command
    from streamgate.sharding import Shard

    if min_size is not None and not 1 <= min_size <= 10000:
        raise UsageError(f"--min-size {min_size:g}: give source pixels, 1 to 10000")
    if resume and overwrite:
        raise UsageError("--resume keeps earlier results, --overwrite replaces them: give one of the two")
    if sequence is not None and not 0 < sequence <= 1000:
        raise UsageError(f"--sequence {sequence:g}: give frames a second, above 0 and up to 1000")
    part = None if shard is None else Shard.parse(shard)
    request = RunRequest(
        inputs=inputs,
        out=Path(out) if part is None else part.folder(Path(out)),
        shard=part,
        flags={
            "keep.top_k": top_k,
            "keep.per": per,
            "keep.poses": poses,
            "identity.only": only,
            "gate.min_size": min_size,
            "gate.max_yaw": max_yaw,
            "output.crops": crops or None,
            "output.format": image_format,
            "output.quality": int(quality) if quality is not None and quality.isdecimal() else quality,
        },
        sinks=sinks,
        sink_retry_s=sink_retry,
        sequence_fps=sequence,
        jobs=jobs,
        decode=decode,
        resume=resume,
        overwrite=overwrite,
        as_json=as_json,
        quiet=quiet,
        device=device,
        preset=preset,
        models=models,
        settings=settings,
    )
    raise SystemExit(run_command(request))


@cli.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--aligned", type=click.Choice(["arcface", "ffhq"]), help="The images are ready crops; do not detect.")
@click.option("--embedding", is_flag=True, help="Include the embedding (biometric data).")
@click.option("--heatmap", metavar="DIR", help="Write IFQA's map over each face into this folder.")
@_gate_options
def score(
    images: tuple[str, ...],
    aligned: str | None,
    embedding: bool,
    heatmap: str | None,
    device: str,
    preset: str,
    models: str,
    settings: tuple[str, ...],
) -> None:
    """Score the faces of single images; a JSON line an image on stdout."""
    from streamgate.commands.score import score_command

    raise SystemExit(
        score_command(
            images,
            aligned=aligned,
            embedding=embedding,
            heatmap=None if heatmap is None else Path(heatmap),
            device=device,
            preset=preset,
            models=models,
            settings=settings,
        )
    )


@cli.command()
@click.argument("out", metavar="OUT")
@click.option(
    "--sink", "url", required=True, metavar="URL", help="redis://HOST:PORT/DB, rediss://... (TLS) or unix://PATH."
)
@_sink_retry_option
@click.option("--quiet", is_flag=True, help="Errors only.")
def replay(out: str, url: str, sink_retry: float, quiet: bool) -> None:
    """Send the events of a finished run again, from its folder OUT. Consumers tell repetitions by their id."""
    from streamgate.commands.replay import replay_command

    raise SystemExit(replay_command(Path(out), url, retry_seconds=sink_retry, quiet=quiet))


@cli.command()
@click.option(
    "--rtsp", multiple=True, metavar="[NAME=]URL",
    help="A stream to watch: rtsp(s), http(s), or a file played as a camera. Repeatable.",
)
@click.option("--config", "config_file", metavar="FILE", help="streams.toml; read again on SIGHUP.")
@click.option("--redis", metavar="URL", help="Send events to redis://HOST:PORT/DB.")
@click.option("-o", "--out", metavar="DIR", help="Write faces here. [default without --redis: streamgate-live]")
@click.option("--http", metavar="HOST:PORT|off", help="The page, its APIs and metrics. [default: 127.0.0.1:8080]")
@click.option("--max-days", type=float, metavar="N", help="Remove faces from DIR after so many days.")
@click.option("--max-gb", type=float, metavar="N", help="Remove the oldest faces from DIR beyond this size.")
@click.option("--spool", metavar="DIR", help="Where events wait for Redis. [default: in --out, or streamgate-spool]")
@click.option("--spool-mb", type=int, metavar="N", help="Size of the spool; beyond it the oldest go. [default: 1024]")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Any key of the preset, for all streams. Repeatable.",
)
@click.option(
    "--models", metavar="embedded|standard|imported|DIR", help=f"Weights to use. [default: {DEFAULT_MODELS}]"
)
@click.option("--preset", metavar="NAME|FILE", help="[default: live]")
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where networks run. [default: auto]")
def serve(
    rtsp: tuple[str, ...], config_file: str | None, settings: tuple[str, ...], **flags: Any
) -> None:
    """Watch cameras for months: the best face of every track to Redis and disk, seen in a browser."""
    from streamgate.commands.serve import serve_command
    from streamgate.service.settings import ServeRequest, service_flags

    request = ServeRequest(
        rtsp=rtsp,
        config_file=None if config_file is None else Path(config_file),
        table=service_flags(flags),
        settings=settings,
    )
    raise SystemExit(serve_command(request))


@cli.command()
@click.argument("out", metavar="OUT")
@click.option(
    "--seconds", type=click.FloatRange(0.2, 600), default=3.0, show_default=True, metavar="S", help="Length of a clip."
)
@click.option("--per", type=click.Choice(["track", "person"]), default="track", show_default=True, help="Whose clips.")
@click.option(
    "--top-k", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N", help="Clips of each of them."
)
@click.option(
    "--cut", type=click.Choice(["exact", "keyframes"]), default="exact", show_default=True,
    help="Encode anew from any frame on, or copy from a key frame on.",
)
@click.option("--footage", multiple=True, metavar="DIR", help="Where the sources lie now. Repeatable.")
@click.option("--overwrite", is_flag=True, help="Replace earlier clips.")
@click.option("--quiet", is_flag=True, help="Errors only.")
@click.option(
    "--models", default=DEFAULT_MODELS, show_default=True, metavar="embedded|standard|imported|DIR",
    help="Weights to use: those of the run.",
)
@_device_option
def clips(out: str, footage: tuple[str, ...], **options: Any) -> None:
    """Cut the best seconds of every track of OUT out of its sources; every frame of a clip passes the gate."""
    from streamgate.commands.clips import ClipsRequest, clips_command

    request = ClipsRequest(out=Path(out), footage=tuple(map(Path, footage)), **options)
    raise SystemExit(clips_command(request))


@cli.command()
@click.argument("out", metavar="OUT")
@click.option("--overwrite", is_flag=True, help="Replace what OUT holds, instead of adding to it.")
@click.option("--quiet", is_flag=True, help="Errors only.")
def merge(out: str, overwrite: bool, quiet: bool) -> None:
    """Put the shards in OUT/shards together into OUT, as one run would have left it. Can be repeated."""
    from streamgate.commands.merge import merge_command

    raise SystemExit(merge_command(Path(out), overwrite=overwrite, quiet=quiet))


@cli.command()
@click.argument("out", metavar="OUT")
@click.option(
    "--to", "formats", multiple=True, required=True, type=click.Choice(["parquet", "webdataset", "imagefolder", "csv"]),
    help="Format. Repeatable.",
)
@click.option("-o", "--output", metavar="DEST", help="File or folder to write. [default: in OUT/exports]")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export there.")
@click.option(
    "--shard-mb", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, metavar="N",
    help="Size of a WebDataset shard in MB.",
)
@click.option("--quiet", is_flag=True, help="Errors only.")
def export(
    out: str, formats: tuple[str, ...], output: str | None, overwrite: bool, shard_mb: int, quiet: bool
) -> None:
    """Write the kept faces of OUT, a folder of `run`, as Parquet, WebDataset, imagefolder or CSV."""
    from streamgate.commands.export import export_command

    target = None if output is None else Path(output)
    raise SystemExit(
        export_command(Path(out), formats, target, overwrite=overwrite, shard_mb=shard_mb, quiet=quiet)
    )


@cli.command()
@click.option("-o", "--out", default="streamgate-demo", show_default=True, help="Folder for the clip and the results.")
@click.option(
    "--models", default=DEFAULT_MODELS, show_default=True, metavar="embedded|standard|imported|DIR",
    help="Weights to use.",
)
@click.option("--quiet", is_flag=True, help="Errors and the paths of the results only.")
@_device_option
def demo(out: str, models: str, quiet: bool, device: str) -> None:
    """No video at hand: render a clip from a portrait and run the gate over it."""
    from streamgate.commands.demo import demo_command

    raise SystemExit(demo_command(Path(out), models, device, quiet))


@cli.command()
@click.argument("out", metavar="OUT")
@click.option("--quiet", is_flag=True, help="Errors only.")
def report(out: str, quiet: bool) -> None:
    """Write OUT/report.html anew from the results in OUT, a folder of `run`."""
    from streamgate.commands.report import report_command

    raise SystemExit(report_command(Path(out), quiet=quiet))


@cli.group(invoke_without_command=True)
@click.argument("out", metavar="OUT")
@click.pass_context
def people(context: click.Context, out: str) -> None:
    """The persons in OUT, a folder that `run` has written: list them, or correct who is who.

    Decisions are kept: a later `run --resume` into OUT never undoes them.
    """
    context.obj = Path(out)
    if context.invoked_subcommand is None:
        context.invoke(people_list)


@people.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@click.pass_obj
def people_list(out: Path, as_json: bool = False) -> None:
    """Show the persons: faces, tracks, where they were seen."""
    from streamgate.commands.people import list_command

    raise SystemExit(list_command(out, as_json=as_json))


@people.command("merge")
@click.argument("person")
@click.argument("others", nargs=-1, required=True, metavar="OTHER...")
@click.pass_obj
def people_merge(out: Path, person: str, others: tuple[str, ...]) -> None:
    """PERSON and every OTHER are one; the id PERSON stays."""
    from streamgate.commands.people import merge_command

    raise SystemExit(merge_command(out, person, others))


@people.command("split")
@click.argument("person")
@click.argument("tracks", nargs=-1, required=True, metavar="SOURCE/TRACK...")
@click.pass_obj
def people_split(out: Path, person: str, tracks: tuple[str, ...]) -> None:
    """These tracks of PERSON are somebody else; prints the new id."""
    from streamgate.commands.people import split_command

    raise SystemExit(split_command(out, person, tracks))


@people.command("name")
@click.argument("person")
@click.argument("name")
@click.pass_obj
def people_name(out: Path, person: str, name: str) -> None:
    """Call PERSON by NAME; an empty one takes the name away."""
    from streamgate.commands.people import name_command

    raise SystemExit(name_command(out, person, name))


@cli.command()
@click.argument("out", metavar="OUT")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="A key of gate, fusion, keep, smoothing or measures, for example gate.max_yaw=20. Repeatable.",
)
@click.option("--top-k", type=int, metavar="N", help="Best faces kept per track.")
@click.option("--min-size", type=float, metavar="PX", help="Smallest face: shorter side of its box in source pixels.")
@click.option("--max-yaw", type=float, metavar="DEG", help="How far a kept face may be turned to a side.")
@click.option("--dry-run", is_flag=True, help="Tell what would change, and change nothing.")
@click.option("--pictured", is_flag=True, help="Leave the footage alone: pick among faces whose pictures are here.")
@click.option("--sources", multiple=True, metavar="DIR", help="Where sources that were moved lie now. Repeatable.")
@click.option("--models", metavar="embedded|standard|imported|DIR", help="Weights of the run. [default: found by hash]")
@_device_option
def tune(
    out: str,
    settings: tuple[str, ...],
    top_k: int | None,
    min_size: float | None,
    max_yaw: float | None,
    dry_run: bool,
    pictured: bool,
    sources: tuple[str, ...],
    models: str | None,
    device: str,
) -> None:
    """Other limits over the results in OUT: judge all faces anew and pick anew, in seconds.

    The footage is looked at only where a new pick was never scored in full or has no picture.
    """
    from streamgate.commands.tune import tune_command
    from streamgate.tuning.tune import TuneRequest

    request = TuneRequest(
        out=Path(out),
        settings=settings,
        flags={"keep.top_k": top_k, "gate.min_size": min_size, "gate.max_yaw": max_yaw},
        roots=tuple(map(Path, sources)),
        models=models,
        device=device,
        dry=dry_run,
        pictured=pictured,
    )
    raise SystemExit(tune_command(request))


@cli.group()
def models() -> None:
    """Weights: list, pull, import, verify."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models_list(as_json: bool) -> None:
    """Show the weights there are, their licences and training data."""
    from streamgate.commands.models import list_command

    raise SystemExit(list_command(as_json))


@models.command("pull")
@click.argument("tier", default="standard")
@click.option("--mirror", metavar="URL|DIR", help="Take files from here, by file name. [env: STREAMGATE_MIRROR]")
@click.option("--quiet", is_flag=True, help="Errors only.")
def models_pull(tier: str, mirror: str | None, quiet: bool) -> None:
    """Download, check and convert the weights of TIER."""
    from streamgate.commands.models import pull_command

    raise SystemExit(pull_command(tier, mirror, quiet))


@models.command("import")
@click.argument("file", metavar="FILE")
@click.option("--name", metavar="NAME", help="Name in lists and records. [default: what the checkpoint is]")
@click.option("--calibrate", metavar="FOLDER", help="Fit the mapping to 0..100 on the faces in this folder.")
@click.option("--licence", metavar="TEXT", help="Shown by `models list`.")
@click.option("--quiet", is_flag=True, help="Errors only.")
def models_import(file: str, name: str | None, calibrate: str | None, licence: str | None, quiet: bool) -> None:
    """Convert a checkpoint of your own: retinaface-pytorch ResNet-50, InsightFace iresnet, official IFQA."""
    from streamgate.commands.models import import_command

    raise SystemExit(import_command(file, name, calibrate, licence, quiet))


@models.command("verify")
def models_verify() -> None:
    """Hash all weights against what they should be."""
    from streamgate.commands.models import verify_command

    raise SystemExit(verify_command())


def main() -> None:
    """Entry point: turns every error into one line and its exit code."""
    # OpenCV would print its own words about damaged pictures; it reads this when it is imported.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        # Not cli.main(): it would turn an interrupt and a closed pipe into endings of its own.
        with cli.make_context("streamgate", sys.argv[1:]) as context:
            cli.invoke(context)
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 0
    except click.exceptions.Exit as leave:
        code = leave.exit_code
    except click.Abort:
        code = 130
    except click.ClickException as error:
        click.echo(f"streamgate: {scrub(error.format_message(), *sys.argv[1:])}", err=True)
        if isinstance(error, click.UsageError):
            where = error.ctx.command_path if error.ctx else "streamgate"
            click.echo(f"Try '{where} --help'.", err=True)
        code = 2
    except StreamgateError as error:
        click.echo(f"streamgate: {scrub(str(error), *sys.argv[1:])}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        click.echo("streamgate: interrupted", err=True)
        code = 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be told there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 5
    except Exception as error:
        if os.environ.get("STREAMGATE_DEBUG"):
            raise
        what = scrub(f"{type(error).__name__}: {error}", *sys.argv[1:])
        click.echo(f"streamgate: internal error ({what}); please report it. STREAMGATE_DEBUG=1 shows more.", err=True)
        code = 1
    else:
        code = 0
    sys.exit(code)
