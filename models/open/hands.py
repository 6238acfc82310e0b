#!/usr/bin/env python3
"""Draw hands from MakeHuman's base mesh (CC0), and cut textures from free pictures, to cover faces with.

    python models/open/hands.py MAKEHUMAN/makehuman/data PICTURES... --out DIR/covers.npz

The script writes a file in the format of `models/expression/cutouts.py`, which serves the embedded network: hands with
opacity and with the wrist at the bottom, and squares cut from PICTURES (folders or tar files).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from models.common.images import DataError, decode_rgb, list_sources  # noqa: E402
from models.expression.covers import Bank  # noqa: E402
from models.expression.cutouts import SIDE, THINGS_SIDE  # noqa: E402
from models.open.heads import Mesh, read_mesh  # noqa: E402

HANDS, THINGS = 600, 500
_FINER = 4
"""Hands are drawn at this many times their size and scaled down."""
_LONGEST = 78.0
"""Largest distance in pixels from the wrist to the tip of a stretched middle finger."""
_KNUCKLES = tuple(range(1, 5))


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data or arguments (one line on stderr)."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path, help="MakeHuman's folder `makehuman/data`")
    p.add_argument("pictures", nargs="+", type=Path)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args(arguments)
    try:
        mesh = read_mesh(args.data)
        bank = Bank(
            np.stack([draw_hand(np.random.default_rng((7, number)), mesh) for number in range(HANDS)]),
            textures(args.pictures, np.random.default_rng(8)),
        )
    except (DataError, OSError) as error:
        print(f"hands.py: {error}", file=sys.stderr)
        return 2
    np.savez(args.out, hands=bank.hands, things=bank.things)
    print(f"wrote {args.out}: {len(bank.hands)} hands, {len(bank.things)} things")
    return 0


def textures(pictures: list[Path], rng: np.random.Generator) -> np.ndarray:
    """Random squares of random pictures, uint8 [THINGS, 160, 160, 3] RGB.

    Raises DataError if no picture is large enough.
    """
    sources = [source.data for source in list_sources(pictures)]
    squares: list[np.ndarray] = []
    while sources and len(squares) < THINGS:
        number = int(rng.integers(len(sources)))
        picture = decode_rgb(sources[number])
        if picture is None or min(picture.shape[:2]) < THINGS_SIDE:
            sources.pop(number)
            continue
        side = int(rng.uniform(THINGS_SIDE / 2, min(picture.shape[:2]) / 2 + THINGS_SIDE / 2))
        top, left = (int(rng.integers(size - side + 1)) for size in picture.shape[:2])
        square = picture[top : top + side, left : left + side]
        squares.append(cv2.resize(square, (THINGS_SIDE, THINGS_SIDE), interpolation=cv2.INTER_AREA))
    if not squares:
        raise DataError(f"{', '.join(map(str, pictures))}: no picture has at least {THINGS_SIDE} px on both sides")
    return np.stack(squares)


def draw_hand(rng: np.random.Generator, mesh: Mesh) -> np.ndarray:
    """A hand in a random pose, seen from a random side: uint8 [100, 100, 4], RGB and opacity."""

    def joint(name: str) -> np.ndarray:
        return mesh.points[np.unique(np.concatenate(mesh.parts[f"joint-r-{name}"]))].mean(axis=0)

    elbow, wrist = joint("elbow"), joint("hand")
    fingers = np.array([[joint(f"finger-{f}-{k}") for k in _KNUCKLES] for f in range(1, 6)])
    arm = wrist - elbow
    along = (mesh.points - elbow) @ arm / (arm @ arm)
    near = np.linalg.norm(mesh.points - elbow - np.clip(along, 0, 2)[:, None] * arm, axis=1) < 1.6
    polygons = [polygon for polygon in mesh.parts["body"] if (near[polygon] & (along[polygon] > 0.35)).all()]
    across = fingers[1, 0] - fingers[4, 0]
    palm = np.cross(fingers[2, 0] - wrist, across)
    palm /= np.linalg.norm(palm)
    points = _bent(rng, mesh.points, wrist, fingers, palm)
    up = fingers[2, 0] - wrist
    up /= np.linalg.norm(up)
    side = np.cross(up, palm)
    placed = (points - wrist) @ np.stack([side, up, palm], axis=1)
    turn, lean = float(rng.uniform(0, 2 * np.pi)), float(rng.normal(0, 0.4))
    (ct, st), (cl, sl) = (np.cos(turn), np.sin(turn)), (np.cos(lean), np.sin(lean))
    placed = placed @ np.array([[ct, 0, -st], [0, 1, 0], [st, 0, ct]])
    placed = placed @ np.array([[1, 0, 0], [0, cl, -sl], [0, sl, cl]])
    longest = float(np.linalg.norm(fingers[2, 0] - wrist) + np.linalg.norm(np.diff(fingers[2], axis=0), axis=1).sum())
    gain = float(rng.uniform(0.7, 1.0)) * _LONGEST / longest * _FINER
    size = SIDE * _FINER
    pixels = np.stack([size / 2 + gain * placed[:, 0], 0.9 * size - gain * placed[:, 1]], axis=1)
    return _painted(rng, placed, pixels, polygons, size)


def _bent(
    rng: np.random.Generator, points: np.ndarray, wrist: np.ndarray, fingers: np.ndarray, palm: np.ndarray
) -> np.ndarray:
    """The points [n, 3], with the fingers bent by random angles, mostly towards the palm; fingers: joints [5, 4, 3]."""
    bones = [(wrist, fingers[f, 0], f, -1) for f in range(5)]
    bones += [(fingers[f, k], fingers[f, k + 1], f, k) for f in range(5) for k in range(3)]
    apart = np.stack([_distance(points, start, end) for start, end, _, _ in bones])
    nearest = apart.argmin(axis=0)
    curl = float(np.clip(rng.normal(0.35, 0.4), -0.15, 1.3)) * float(rng.choice((-1, 1)) if rng.random() < 0.1 else 1)
    out = points.copy()
    for f in range(5):
        angle = float(np.clip(curl + rng.normal(0, 0.2), -0.2, 1.4)) * (0.4 if f == 0 else 1.0)
        forward = fingers[f, 1] - fingers[f, 0]
        axis = np.cross(forward / np.linalg.norm(forward), palm)
        axis /= np.linalg.norm(axis)
        turned, moved = np.eye(3), fingers[f, 0].copy()
        for k in range(3):
            turned = turned @ cv2.Rodrigues(axis * angle)[0]
            chosen = nearest == next(i for i, bone in enumerate(bones) if bone[2:] == (f, k))
            out[chosen] = (points[chosen] - fingers[f, k]) @ turned.T + moved
            moved = moved + turned @ (fingers[f, k + 1] - fingers[f, k])
    return out


def _distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    way = end - start
    share = np.clip((points - start) @ way / (way @ way), 0, 1)
    return np.linalg.norm(points - start - share[:, None] * way, axis=1)


def _painted(
    rng: np.random.Generator, placed: np.ndarray, pixels: np.ndarray, polygons: list[list[int]], size: int
) -> np.ndarray:
    quads = np.array([(polygon + polygon[-1:])[:4] for polygon in polygons])
    corners = placed[quads]
    normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    around = np.zeros_like(placed)
    for column in range(4):
        np.add.at(around, quads[:, column], normals)
    smooth = around[quads].mean(axis=1)
    smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-9)
    sun = np.array([rng.normal(0, 0.7), rng.normal(0.3, 0.6), 1.0])
    ambient = float(rng.uniform(0.35, 0.75))
    light = ambient + (1.05 - ambient) * np.clip(smooth @ (sun / np.linalg.norm(sun)), 0, 1)
    dark, fair = np.array([62, 38, 28.0]), np.array([240, 203, 182.0])
    skin = dark + (fair - dark) * float(rng.beta(1.3, 1.0)) + rng.normal(0, 6, 3)
    waves = sum(np.sin(corners.mean(axis=1) @ rng.normal(0, scale, 3) + rng.uniform(0, 6)) for scale in (6, 15, 40))
    shown = np.clip(skin * light[:, None] + 4.0 * waves[:, None], 0, 255)
    canvas, shape = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    canvas[:] = np.clip(skin * ambient, 0, 255)
    # In a mirrored mesh, the corners run the other way round, so the sign of the normals has to be determined.
    front = normals[:, 2] > 0 if _outward(placed, quads, normals) else normals[:, 2] < 0
    points = np.round(pixels[quads] * 16).astype(np.int32)
    for index in np.argsort(corners[:, :, 2].mean(axis=1)):
        if front[index]:
            cv2.fillConvexPoly(canvas, points[index], shown[index].tolist(), cv2.LINE_8, 4)
            cv2.fillConvexPoly(shape, points[index], 255, cv2.LINE_8, 4)
    blurred = cv2.GaussianBlur(canvas, (0, 0), 0.6 * _FINER)
    return cv2.resize(np.dstack([blurred, shape]), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _outward(placed: np.ndarray, quads: np.ndarray, normals: np.ndarray) -> bool:
    """Whether the normals point away from the middle of the hand."""
    middles = placed[quads].mean(axis=1)
    return bool(((middles - middles.mean(axis=0)) * normals).sum(axis=1).mean() > 0)


if __name__ == "__main__":
    sys.exit(main())
