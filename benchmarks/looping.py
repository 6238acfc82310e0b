"""Makes long clips of short ones: the same packets again and again, so that decoding costs what it did.

    python benchmarks/looping.py CLIP SECONDS FOLDER    prints {"path", "how"} as JSON

A process of its own for `throughput.py`, so that the memory it takes is not in the way.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av


@dataclass(frozen=True, slots=True)
class Looped:
    """A long clip and how it was made: "copy", "copy to mkv" or "encoded again"."""

    path: str
    how: str


@dataclass(frozen=True, slots=True)
class _Times:
    """One pass over a clip: `pts` and `dts` of its packets and `length`, all in units of its time base."""

    pts: tuple[int, ...]
    dts: tuple[int, ...]
    length: int
    time_base: Fraction


def loop(clip: Path, seconds: float, folder: Path) -> Looped:
    """Write `clip` over and over into `folder` until it lasts `seconds`.

    The first way whose result decodes whole wins. Raises ValueError when none does.
    """
    times = _times_of(clip)
    passes = max(1, math.ceil(seconds / float(times.length * times.time_base)))
    frames = _count_frames(clip)
    reasons = []
    for how, suffix, write in (
        ("copy", clip.suffix, _copy),
        ("copy to mkv", ".mkv", _copy),
        ("encoded again", clip.suffix, _encode),
    ):
        path = folder / f"{clip.stem}{suffix}"
        try:
            write(clip, path, times, passes)
            made = _count_frames(path)
        except (av.error.FFmpegError, ValueError, OSError) as error:
            reasons.append(f"{how}: {error}")
            continue
        # A decoder may lose a few frames where passes meet (open groups of pictures), but no more.
        if made >= passes * frames - 2 * passes and made >= 0.97 * passes * frames:
            return Looped(str(path), how)
        reasons.append(f"{how}: {made} frames instead of {passes * frames}")
    raise ValueError(f"{clip.name} cannot be looped ({'; '.join(reasons)})")


def _copy(clip: Path, path: Path, times: _Times, passes: int) -> None:
    with av.open(str(path), "w") as out:
        target: Any = None
        latest = None
        for index in range(passes):
            with av.open(str(clip)) as source:
                stream = source.streams.video[0]
                if target is None:
                    target = out.add_stream_from_template(stream)
                shift = index * times.length
                for packet, pts, dts in zip(_packets(source), times.pts, times.dts, strict=True):
                    packet.pts, packet.dts = pts + shift, dts + shift
                    if latest is not None:
                        packet.dts = max(packet.dts, latest + 1)
                        packet.pts = max(packet.pts, packet.dts)
                    latest = packet.dts
                    packet.time_base = times.time_base
                    packet.stream = target
                    out.mux(packet)


def _encode(clip: Path, path: Path, times: _Times, passes: int) -> None:
    with av.open(str(path), "w") as out:
        target: Any = None
        for index in range(passes):
            with av.open(str(clip)) as source:
                stream = source.streams.video[0]
                if target is None:
                    target = out.add_stream(stream.codec_context.name, rate=stream.average_rate)
                    target.width, target.height = stream.width, stream.height
                    wanted = stream.codec_context.pix_fmt
                    target.pix_fmt = "rgb8" if target.codec_context.name == "gif" else wanted
                for frame in source.decode(stream):
                    frame = frame.reformat(format=target.pix_fmt)
                    frame.pts = None if frame.pts is None else frame.pts + index * times.length
                    frame.time_base = times.time_base
                    frame.pict_type = 0
                    out.mux(target.encode(frame))
        out.mux(target.encode())


def _times_of(clip: Path) -> _Times:
    """Times of the packets that are shown, made complete; the next pass begins where the last frame ends."""
    pts: list[int] = []
    dts: list[int] = []
    end = 0
    with av.open(str(clip)) as source:
        stream = source.streams.video[0]
        base = stream.time_base or Fraction(1, 1000)
        step = round(1 / (stream.average_rate or 25) / base) or 1
        for packet in _packets(source):
            # MPEG program streams leave times out, AVI has no pts.
            decoded = packet.dts if packet.dts is not None else (dts[-1] + step if dts else packet.pts or 0)
            shown = packet.pts if packet.pts is not None else decoded
            dts.append(max(decoded, dts[-1] + 1) if dts else decoded)
            pts.append(max(shown, dts[-1]))
            end = max(end, pts[-1] + (packet.duration or step))
    if not pts:
        raise ValueError(f"{clip.name} has no video packets")
    return _Times(tuple(pts), tuple(dts), end - min(pts), base)


def _packets(source: Any) -> Iterator[Any]:
    for packet in source.demux(source.streams.video[0]):
        if packet.size:
            yield packet


def _count_frames(clip: Path) -> int:
    with av.open(str(clip)) as source:
        stream = source.streams.video[0]
        stream.thread_type = "AUTO"
        return sum(1 for _ in source.decode(stream))


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(loop(Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])))))
    except (ValueError, av.error.FFmpegError, OSError) as error:
        sys.exit(str(error))
