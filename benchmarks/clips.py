"""Makes clips from real clips, in a separate process, so that its memory does not count for the caller.

    python benchmarks/clips.py loop CLIP SECONDS FOLDER                      repeat the packets of a clip
    python benchmarks/clips.py tile PATH COUNT SECONDS WIDTH HEIGHT CLIP...  show COUNT clips in a square grid
    python benchmarks/clips.py join PATH SECONDS KEY_S WIDTH HEIGHT CLIP...  one after another, a key frame every KEY_S

Prints {"path", "how"} or {"frames"} as JSON. `loop` copies packets, so that decoding costs as much as for the original.
`tile` fills the grid with the clips in turn, looped and cropped to the shape of a tile; if a clip is used again, it
starts later. With one tile, the result is the clip at another size. `join` shows the clips one after another until the
result lasts SECONDS, without key frames at the cuts. `tile` and `join` write H.264 with 25 frames per second.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from processes import answer

RATE = 25
LATER = 10
"""If a clip fills several tiles, each of them starts this many frames later than the previous one."""


def loop(clip: Path, seconds: float, folder: Path) -> dict[str, str]:
    """Write `clip` repeatedly to a file in `folder` until it lasts `seconds`.

    The file has the container of the clip or, if the result cannot be decoded completely, Matroska. Raises ValueError
    if neither result can be decoded completely.
    """
    pts, dts, length, base = _times_of(clip)
    passes = max(1, math.ceil(seconds / float(length * base)))
    frames = count_frames(clip)
    reasons = []
    for how, suffix in (("copy", clip.suffix), ("copy to mkv", ".mkv")):
        path = folder / f"{clip.stem}{suffix}"
        try:
            _copy(clip, path, passes, pts, dts, length, base)
            made = count_frames(path)
        except (av.error.FFmpegError, ValueError, OSError) as error:
            reasons.append(f"{how}: {error}")
            continue
        # A decoder may lose a few frames where passes meet (open groups of pictures), but no more.
        if made >= passes * frames - 2 * passes and made >= 0.97 * passes * frames:
            return {"path": str(path), "how": how}
        reasons.append(f"{how}: {made} frames instead of {passes * frames}")
    raise ValueError(f"{clip.name} cannot be looped ({'; '.join(reasons)})")


def _copy(
    clip: Path, path: Path, passes: int, pts: Sequence[int], dts: Sequence[int], length: int, base: Fraction
) -> None:
    with av.open(str(path), "w") as out:
        target: Any = None
        latest = None
        for index in range(passes):
            with av.open(str(clip)) as source:
                if target is None:
                    target = out.add_stream_from_template(source.streams.video[0])
                for packet, shown, decoded in zip(_packets(source), pts, dts, strict=True):
                    packet.pts, packet.dts = shown + index * length, decoded + index * length
                    if latest is not None:
                        packet.dts = max(packet.dts, latest + 1)
                        packet.pts = max(packet.pts, packet.dts)
                    latest = packet.dts
                    packet.time_base = base
                    packet.stream = target
                    out.mux(packet)


def _times_of(clip: Path) -> tuple[list[int], list[int], int, Fraction]:
    """Times (pts, dts) of all packets, with missing times filled in; the length of one pass; the time base."""
    pts: list[int] = []
    dts: list[int] = []
    end = 0
    with av.open(str(clip)) as source:
        stream = source.streams.video[0]
        base = stream.time_base or Fraction(1, 1000)
        step = round(1 / (stream.average_rate or RATE) / base) or 1
        for packet in _packets(source):
            # MPEG program streams omit some times; AVI has no pts.
            decoded = packet.dts if packet.dts is not None else (dts[-1] + step if dts else packet.pts or 0)
            shown = packet.pts if packet.pts is not None else decoded
            dts.append(max(decoded, dts[-1] + 1) if dts else decoded)
            pts.append(max(shown, dts[-1]))
            end = max(end, pts[-1] + (packet.duration or step))
    if not pts:
        raise ValueError(f"{clip.name} has no video packets")
    return pts, dts, end - min(pts), base


def _packets(source: Any) -> Iterator[Any]:
    return (packet for packet in source.demux(source.streams.video[0]) if packet.size)


def count_frames(clip: Path) -> int:
    """Number of frames that can be decoded."""
    with av.open(str(clip)) as source:
        source.streams.video[0].thread_type = "AUTO"
        return sum(1 for _ in source.decode(video=0))


def tile(path: Path, count: int, seconds: float, size: tuple[int, int], clips: Sequence[Path]) -> dict[str, int]:
    """Write the clip of tiles. Raises ValueError if a clip has no frames."""
    width, height = size
    grid = math.ceil(math.sqrt(count))
    cell = (width // grid, height // grid)
    readers = [_endless(clips[index % len(clips)], cell, LATER * (index // len(clips))) for index in range(count)]
    frames = max(1, round(seconds * RATE))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        canvas = np.full((height, width, 3), 60, np.uint8)
        for _ in range(frames):
            for index, reader in enumerate(readers):
                top, left = cell[1] * (index // grid), cell[0] * (index % grid)
                canvas[top : top + cell[1], left : left + cell[0]] = next(reader)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(canvas, format="rgb24")))
        out.mux(stream.encode())
    return {"frames": frames}


def join(path: Path, seconds: float, key_s: float, size: tuple[int, int], clips: Sequence[Path]) -> dict[str, int]:
    """Write the clips one after another, repeatedly, until the duration is reached."""
    wanted, count = max(1, round(seconds * RATE)), 0
    group = str(round(key_s * RATE))
    options = {"crf": "20", "preset": "veryfast", "g": group, "keyint_min": group, "sc_threshold": "0"}
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for clip in itertools.cycle(clips):
            with av.open(str(clip)) as source:
                source.streams.video[0].thread_type = "AUTO"
                for frame in itertools.islice(source.decode(video=0), wanted - count):
                    picture = _covering(frame.to_ndarray(format="rgb24"), size)
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                    count += 1
            if count >= wanted:
                break
        out.mux(stream.encode())
    return {"frames": count}


def _endless(clip: Path, size: tuple[int, int], skip: int) -> Iterator[np.ndarray]:
    """The frames of the clip as RGB of `size`, repeated endlessly. The first time, the first `skip` are left out."""
    while True:
        given = 0
        with av.open(str(clip)) as source:
            for frame in source.decode(video=0):
                given += 1
                if given > skip:
                    yield _covering(frame.to_ndarray(format="rgb24"), size)
        if given == 0:
            raise ValueError(f"{clip.name} has no frames")
        skip = 0


def _covering(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture, scaled to cover `size` and cropped around its centre."""
    scale = max(size[0] / picture.shape[1], size[1] / picture.shape[0])
    wanted = (max(size[0], round(picture.shape[1] * scale)), max(size[1], round(picture.shape[0] * scale)))
    scaled = cv2.resize(picture, wanted, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (wanted[0] - size[0]) // 2, (wanted[1] - size[1]) // 2
    return scaled[top : top + size[1], left : left + size[0]]


def main() -> dict[str, Any]:
    what, first, *rest = sys.argv[1:]
    if what == "loop":
        return loop(Path(first), float(rest[0]), Path(rest[1]))
    if what == "join":
        seconds, key_s, width, height, *clips = rest
        size = int(width), int(height)
        return join(Path(first), float(seconds), float(key_s), size, [Path(one) for one in clips])
    count, seconds, width, height, *clips = rest
    return tile(Path(first), int(count), float(seconds), (int(width), int(height)), [Path(one) for one in clips])


if __name__ == "__main__":
    answer(main)
