"""`streamgate run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from streamgate.commands.help import Command, section
from streamgate.commands.options import (
    PATH,
    TEXT_PATH,
    complete_folders,
    device_option,
    job_count,
    max_yaw_option,
    min_size_option,
    models_option,
    preset_option,
    set_option,
    sink_retry_option,
    timecode,
)
from streamgate.errors import UsageError

_input = section("Input")
_faces = section("Which faces are kept")
_output = section("Output")
_events = section("Events")
_work = section("Speed and distribution")


@click.command(
    cls=Command,
    epilog="""
    streamgate run footage/ *.mov -o faces --jobs auto  # a folder and more files
    streamgate run @list.txt --start 1:30 --end 5:00  # a part of each video
    streamgate run clip.mp4 --top-k 5 --max-yaw 15    # more faces, nearly frontal
    streamgate run footage/ --per person              # the best face per person
    streamgate run clip.mp4 --crop arcface            # an additional picture
    streamgate run frames/ --sequence 25              # images as a 25 fps video
    streamgate run footage/ -o faces --resume         # after an interruption
    streamgate run footage/ -o faces --shard 3/8      # one of eight machines
    streamgate run s3://bucket/set -o faces --ray auto  # on a Ray cluster
    """,
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=TEXT_PATH)
@_input(
    "--sequence", "sequence_fps", type=float, metavar="FPS",
    help="Read a folder's images as the frames of a video with this frame rate.",
)
@_input("--start", type=timecode, metavar="TIME", help="Where to start in each video: seconds, M:S or H:M:S.")
@_input("--end", type=timecode, metavar="TIME", help="Where to end in each video.")
@_faces("--top-k", type=int, metavar="N", help="Number of faces to keep per track (or per person with --per person).")
@_faces(
    "--per", type=click.Choice(["track", "person"]),
    help="Keep the best faces of each track, or of each person across all sources.",
)
@_faces(
    "--every", type=click.FloatRange(0.5, 86400), metavar="SECONDS",
    help="Split each track into parts of this length, and keep the best faces of each part.",
)
@_faces(
    "--poses", type=click.Choice(["frontal", "all"]),
    help="frontal: reject turned heads. all: keep the best faces of each bin of yaw and pitch.",
)
@_faces("--only", metavar="PICTURE", type=TEXT_PATH, help="Keep only the person in this picture.")
@min_size_option
@max_yaw_option
@_output(
    "-o", "--out", type=PATH, default="streamgate-out", show_default=True, metavar="DIR",
    shell_complete=complete_folders, help="Folder for the results.",
)
@_output(
    "--crop", "crops", multiple=True, type=click.Choice(["ffhq", "arcface", "loose", "frame"]),
    help="Additional pictures of each kept face, besides the FFHQ crop. Repeatable.",
)
@_output("--format", "image_format", type=click.Choice(["png", "jpeg", "webp"]), help="File format of the pictures.")
@_output(
    "--quality", metavar="1..100|auto",
    help="Quality of JPEG and WebP. auto: for each picture, the lowest quality that hardly changes the networks' "
    "scores.",
)
@_output("--resume", is_flag=True, help="Continue an earlier run in this folder; completed sources are skipped.")
@_output("--overwrite", is_flag=True, help="Replace the results of an earlier run in this folder.")
@_output("--json", "as_json", is_flag=True, help="Print the records of the kept faces on stdout, as JSON lines.")
@_events(
    "--sink", "sinks", multiple=True, metavar="URL",
    help="Also send events to redis://HOST:PORT/DB, rediss://... (TLS) or unix://PATH. Repeatable.",
)
@sink_retry_option
@_work(
    "--jobs", type=job_count, default="1", show_default=True, metavar="N|auto",
    help="Number of sources to read at once; with --ray, per actor. auto: one per core (on a GPU, at least 16), "
    "limited by memory; with --ray, 1.",
)
@_work(
    "--decode", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Where video is decoded: auto means the CPU, cuda means the GPU of --device.",
)
@_work(
    "--shard", metavar="I/N",
    help="Read only part I of N of the sources, and write the results to shards/I in the output folder; "
    "`streamgate merge` combines the parts.",
)
@_work(
    "--ray", metavar="ADDRESS",
    help="Read the sources on a Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT. All nodes must "
    "share the output folder.",
)
@preset_option
@set_option
@models_option
@device_option
@click.option(
    "--log-level", type=click.Choice(["error", "warning", "info", "debug"]), default="info", show_default=True,
    help="Verbosity on stderr; debug adds weights, timings, tracebacks and FFmpeg's own messages.",
)
@click.option("--quiet", is_flag=True, help="Same as --log-level error.")
def run(
    inputs: tuple[str, ...],
    out: Path,
    shard: str | None,
    top_k: int | None,
    per: str | None,
    poses: str | None,
    only: str | None,
    min_size: float | None,
    max_yaw: float | None,
    crops: tuple[str, ...],
    image_format: str | None,
    quality: str | None,
    start: float | None,
    end: float | None,
    every: float | None,
    log_level: str,
    quiet: bool,
    **options: Any,
) -> int:
    """Keep the best face of every track in the inputs.

    A track is one face that is followed from frame to frame within one shot.

    INPUT is a video file, a folder, an image or a pattern, local or in an object store. @FILE reads a list of inputs
    from a file, one per line; '-' reads the list from standard input.

    Pictures, records, a summary and an HTML report are written to the folder given by --out.
    """
    from streamgate.commands.input_lists import expanded
    from streamgate.commands.messages import RunRequest
    from streamgate.commands.parent import run_with_worker
    from streamgate.sharding import Shard

    if min_size is not None and not 1 <= min_size <= 10000:
        raise UsageError(f"--min-size {min_size:g}: give a number of source pixels from 1 to 10000")
    if options["resume"] and options["overwrite"]:
        raise UsageError("--resume keeps earlier results and --overwrite replaces them: give only one of the two")
    fps = options["sequence_fps"]
    if fps is not None and not 0 < fps <= 1000:
        raise UsageError(f"--sequence {fps:g}: give a number of frames per second above 0 and at most 1000")
    if end is not None and end <= (start or 0.0):
        raise UsageError(f"--end {end:g}: give a time after --start ({start or 0.0:g} s)")
    part = None if shard is None else Shard.parse(shard)
    if options["ray"] is not None:
        _check_ray(part is not None, options["sinks"])
    return run_with_worker(
        RunRequest(
            inputs=expanded(inputs),
            out=out if part is None else part.folder(out),
            shard=part,
            flags={
                "keep.top_k": top_k,
                "keep.per": per,
                "keep.every_s": every,
                "decoding.start_s": start,
                "decoding.end_s": end,
                "keep.poses": poses,
                "identity.only": only,
                "measures.size.min": min_size,
                "measures.yaw.max": max_yaw,
                "output.crops": crops or None,
                "output.format": image_format,
                "output.quality": int(quality) if quality is not None and quality.isdecimal() else quality,
            },
            log_level="error" if quiet else log_level,
            **options,
        )
    )


def _check_ray(sharded: bool, sinks: tuple[str, ...]) -> None:
    """Raises UsageError for options that cannot be combined with --ray."""
    if sharded:
        raise UsageError("--ray and --shard both distribute the sources: give only one of the two")
    if sinks:
        raise UsageError("--sink does not work with --ray; send the events later: streamgate replay OUT --sink URL")
