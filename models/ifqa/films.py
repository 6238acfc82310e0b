"""Faces compressed by video encoders, once before training, because encoders are too slow to run in every step."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from models.common.images import shrink_square
from models.common.severity import Picture
from models.common.video import h264, hevc

SIDE = 256
CRFS = (20, 25, 30, 35, 40)
HEIGHTS = (1080, 720, 540)
FRAMES = 5
COLUMNS, ROWS = 7, 4
"""Faces that fit on one sheet of 1920 x 1080 px."""


def build_films(faces: np.ndarray, indexes: np.ndarray, count: int, folder: Path, seed: int) -> np.ndarray:
    """uint8 [count, 1 + levels, 256, 256, 3]: each clean face, followed by its copies with increasing compression. The
    array is stored in `folder` and reused by later runs.

    faces: uint8 [n, side, side, 3]; indexes: faces that may be used. Each sheet of 28 faces becomes a film in which it
    moves by one pixel per frame. The film is scaled to one of HEIGHTS, encoded as H.264 or HEVC with each of CRFS, and
    scaled back.
    """
    shape = (count, 1 + len(CRFS), SIDE, SIDE, 3)
    key = hashlib.sha256(repr((shape, CRFS, HEIGHTS, FRAMES, seed, indexes.tolist())).encode()).hexdigest()[:12]
    path = folder / f"films-{key}.u8"
    if not path.is_file():
        rng = np.random.default_rng(seed)
        chosen = rng.choice(indexes, count, replace=count > len(indexes))
        part = path.with_suffix(".part")
        with part.open("wb") as out:
            for start in range(0, count, COLUMNS * ROWS):
                some = [shrink_square(np.asarray(faces[i]), SIDE) for i in chosen[start : start + COLUMNS * ROWS]]
                out.write(film_sheet(some, rng).tobytes())
        part.replace(path)
    return np.memmap(path, np.uint8, "r", shape=shape)


def film_sheet(faces: list[Picture], rng: np.random.Generator) -> np.ndarray:
    """The same array for one sheet, uint8 [len(faces), 1 + levels, 256, 256, 3].

    faces: at most COLUMNS * ROWS faces of 256 px.
    """
    sheet = np.full((1080 + FRAMES, 1920 + FRAMES, 3), int(rng.integers(40, 200)), np.uint8)
    corners = [(i // COLUMNS * SIDE, i % COLUMNS * SIDE) for i in range(len(faces))]
    for face, (y, x) in zip(faces, corners, strict=True):
        sheet[y + FRAMES : y + FRAMES + SIDE, x + FRAMES : x + FRAMES + SIDE] = face
    film = [sheet[f : f + 1080, f : f + 1920] for f in range(1, FRAMES + 1)]
    height = int(rng.choice(HEIGHTS))
    encode = h264 if rng.random() < 0.5 else hevc
    if height < 1080:
        film = [cv2.resize(f, (1920 * height // 1080, height), interpolation=cv2.INTER_AREA) for f in film]
    out = [list(faces)]
    for crf in CRFS:
        last = encode(film, crf)[-1]
        big = last if height == 1080 else cv2.resize(last, (1920, 1080), interpolation=cv2.INTER_CUBIC)
        out.append([big[y : y + SIDE, x : x + SIDE] for y, x in corners])
    return np.stack([np.stack(level) for level in out], axis=1)
