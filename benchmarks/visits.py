"""A long shot without faces into which somebody looks now and then, for `decoding.py`.

    python benchmarks/visits.py STAGE VISITOR OUT COUNT STAY...

STAGE is footage without faces, played forth and back so that it never cuts; VISITOR shows one face, whose square
picture slides in from the left, stays and slides out. For each STAY (seconds) there are COUNT visits, in mixed order,
10 to 20 s apart. Prints {"seconds", "key_s", "face_px", "visits": [[start, end, stay], ...]} as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

RATE = 25
SIDE = 220
"""Of the visitor's picture, in pixels."""
SLIDE_S = 0.4
SEED = 7


def make(stage: Path, visitor: Path, out: Path, count: int, stays: list[float]) -> dict[str, Any]:
    """Write the clip; returns what `main` prints."""
    random = np.random.default_rng(SEED)
    order = random.permutation([stay for stay in stays for _ in range(count)])
    visits: list[list[float]] = []
    time = 5.0
    for stay in order:
        time += float(random.uniform(10, 20))
        visits.append([round(time, 3), round(time + float(stay), 3), float(stay)])
        time += float(stay)
    frames = int((time + 12) * RATE)
    background = _forth_and_back(_frames(stage))
    faces = _forth_and_back([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for one in _frames(visitor)])
    with av.open(str(out), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = _frames(stage, 1)[0].shape[:2]
        for index in range(frames):
            picture = next(background).copy()
            now = index / RATE
            for start, until, _ in visits:
                if start <= now < until:
                    _place(picture, next(faces), min(1.0, (now - start) / SLIDE_S, (until - now) / SLIDE_S))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return {"seconds": frames / RATE, "key_s": _key_distance(out), "face_px": round(0.5 * SIDE), "visits": visits}


def _frames(path: Path, limit: int = 20 * RATE) -> list[np.ndarray]:
    """The first pictures, RGB."""
    with av.open(str(path)) as container:
        found = []
        for frame in container.decode(video=0):
            found.append(frame.to_ndarray(format="rgb24"))
            if len(found) == limit:
                break
        return found


def _forth_and_back(frames: list[np.ndarray]) -> Iterator[np.ndarray]:
    while True:
        yield from frames
        yield from reversed(frames)


def _place(picture: np.ndarray, face: np.ndarray, share: float) -> None:
    """Put the visitor's picture on the stage, `share` of it to be seen, at the left and half way down."""
    shown = max(1, round(share * SIDE))
    top = (picture.shape[0] - SIDE) // 2
    picture[top : top + SIDE, :shown] = face[:, SIDE - shown :]


def _key_distance(path: Path) -> float:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        keys = [float(p.pts * p.time_base) for p in container.demux(stream) if p.is_keyframe and p.pts is not None]
    return float(np.median(np.diff(keys))) if len(keys) > 1 else 0.0


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    print(json.dumps(make(*(Path(one) for one in sys.argv[1:4]), int(sys.argv[4]), [float(s) for s in sys.argv[5:]])))
