"""Makes clips of a wanted size and number of faces out of real ones.

    python benchmarks/tiling.py PATH COUNT SECONDS WIDTH HEIGHT CLIP...    prints {"frames"} as JSON

COUNT tiles in a square grid, filled with the clips in turn, each starting a little later in its clip and looped; a
tile is cut to its shape from the middle. With one tile it is the clip at another size. H.264, 25 frames a second.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

RATE = 25
LATER = 10
"""Frames that a clip's next tile starts later."""


def tile(path: Path, count: int, seconds: float, size: tuple[int, int], clips: Sequence[Path]) -> int:
    """Write the clip; returns how many frames it has. Raises ValueError for a clip without frames."""
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
    return frames


def _endless(clip: Path, size: tuple[int, int], skip: int) -> Iterator[np.ndarray]:
    """The clip's frames as RGB of `size`, over and over, the first `skip` left out the first time."""
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
    """The picture scaled to cover `size`, and cut from its middle."""
    scale = max(size[0] / picture.shape[1], size[1] / picture.shape[0])
    wanted = (max(size[0], round(picture.shape[1] * scale)), max(size[1], round(picture.shape[0] * scale)))
    scaled = cv2.resize(picture, wanted, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (wanted[0] - size[0]) // 2, (wanted[1] - size[1]) // 2
    return scaled[top : top + size[1], left : left + size[0]]


if __name__ == "__main__":
    try:
        target, number, length, across, down, *files = sys.argv[1:]
        made = tile(Path(target), int(number), float(length), (int(across), int(down)), [Path(one) for one in files])
        print(json.dumps({"frames": made}))
    except (ValueError, av.error.FFmpegError, OSError) as error:
        sys.exit(str(error))
