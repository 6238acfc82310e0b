#!/usr/bin/env python3
"""Draw heads in every pose from MakeHuman's base mesh (CC0), with labels for the detector.

    python models/open/heads.py MAKEHUMAN/makehuman/data --count 1500 --out DIR

The portraits show hardly any profiles, no children and few women. Therefore, heads are mixed from MakeHuman's shapes of
people of three origins, both sexes and four ages, turned by up to 90 degrees, and given random light and colours. The
script writes DIR/images, and DIR/label.txt in the format of `models/detector/labels.py`. The heads are only drawings:
their skin has no texture, and their hair no strands.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from models.common.images import DataError  # noqa: E402
from models.open.compose import fill, write  # noqa: E402

ORIGINS, SEXES, AGES = ("african", "asian", "caucasian"), ("female", "male"), ("baby", "child", "young", "old")
LIPS = ("mouth/mouth-lowerlip-volume-incr.target", "mouth/mouth-upperlip-volume-incr.target")
SIZE = (360, 300)
"""Height and width of a picture, which is drawn at twice this size and scaled down."""
LARGEST_YAW, LARGEST_PITCH, LARGEST_ROLL = 90.0, 25.0, 15.0
_HAIRLINE, _CHIN, _CUT = 8.05, 6.25, 3.6


@dataclass(frozen=True)
class Mesh:
    """MakeHuman's mesh.

    points: float64 [n, 3]; parts: the polygons of each part, as lists of indices; targets: for each target (a change of
    the shape), by file name, the indices of the moved points and their offsets.
    """

    points: np.ndarray
    parts: dict[str, list[list[int]]]
    targets: dict[str, tuple[np.ndarray, np.ndarray]]


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data or arguments (one line on stderr)."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path, help="MakeHuman's folder `makehuman/data`")
    p.add_argument("--count", type=int, default=1500, help="number of heads")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args(arguments)
    try:
        mesh = read_mesh(args.data)
    except DataError as error:
        print(f"heads.py: {error}", file=sys.stderr)
        return 2
    (args.out / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(args.count):
        picture, label = draw(np.random.default_rng((3, number)), mesh)
        write(args.out / f"images/head{number:05d}.jpg", picture)
        lines += [f"# head{number:05d}.jpg", label]
    (args.out / "label.txt").write_text("\n".join(lines) + "\n")
    print(f"{args.out}: {args.count} heads")
    return 0


def read_mesh(folder: Path) -> Mesh:
    """Read MakeHuman's base mesh and the targets that are mixed. Raises DataError."""
    names = [f"macrodetails/{o}-{s}-{a}.target" for o in ORIGINS for s in SEXES for a in AGES]
    names += [f"macrodetails/universal-{s}-{a}-averagemuscle-averageweight.target" for s in SEXES for a in AGES]
    try:
        names += [f"head/{file.name}" for file in sorted((folder / "targets/head").glob("head-*.target"))]
        points, parts = _obj(folder / "3dobjs/base.obj")
        return Mesh(points, parts, {name: _target(folder / "targets" / name) for name in (*names, *LIPS)})
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{folder}: not MakeHuman's `makehuman/data` ({error})") from error


def _obj(file: Path) -> tuple[np.ndarray, dict[str, list[list[int]]]]:
    points: list[list[float]] = []
    parts: dict[str, list[list[int]]] = {}
    part = ""
    for line in file.read_text().splitlines():
        kind, *words = line.split() or [""]
        if kind == "v":
            points.append([float(word) for word in words[:3]])
        elif kind == "g":
            part = words[0]
        elif kind == "f":
            parts.setdefault(part, []).append([int(word.split("/")[0]) - 1 for word in words])
    if not {"body", "helper-l-eye", "helper-r-eye", "helper-hair"} <= set(parts):
        raise ValueError("base.obj has no body, eyes and hair")
    return np.array(points), parts


def _target(file: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = [line.split() for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
    table = np.array(rows, np.float64).reshape(-1, 4)
    return table[:, 0].astype(int), table[:, 1:]


def draw(rng: np.random.Generator, mesh: Mesh) -> tuple[np.ndarray, str]:
    """A picture of a random head, uint8 [360, 300, 3] RGB, and the line with the label of its face."""
    base, points = mesh.points, _mixed(rng, mesh)
    eyes = [points[np.unique(np.concatenate(mesh.parts[f"helper-{side}-eye"]))] for side in ("r", "l")]
    centres = np.array([eye.mean(axis=0) for eye in eyes])
    radius = float(np.ptp(eyes[0][:, 2])) / 2
    # Heads are scaled by the distance between the eyes, so that babies become as large as adults.
    unit = float(np.linalg.norm(centres[1] - centres[0])) / 0.62
    middle = centres.mean(axis=0) - np.array([0, 0.25, 0.75]) * unit
    turn = _turn(rng)
    distance = float(rng.uniform(10, 30))
    height, width = SIZE
    # Pixels per decimetre at the middle of the head; the head fills a third to two thirds of the picture.
    focal = float(rng.uniform(0.33, 0.62)) * height / 2.3
    place = np.array([width, height]) / 2 + rng.uniform(-0.08, 0.08, 2) * (width, height)

    def seen(where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The points projected into the picture: pixels [n, 2] and depth [n]."""
        turned = (where - middle) @ turn.T / unit
        gain = focal * distance / (distance - turned[:, 2])
        return np.stack([place[0] + gain * turned[:, 0], place[1] - gain * turned[:, 1]], axis=1), turned[:, 2]

    colours, body = _colours(rng, mesh, points, centres, radius)
    canvas = fill(rng, (2 * width, 2 * height), [])
    _paint(rng, canvas, mesh, (points - middle) @ turn.T / unit, seen(points)[0], colours)
    picture = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    lips = np.unique(np.concatenate([mesh.targets[name][0] for name in LIPS]))
    corners = [lips[base[lips, 0].argmin()], lips[base[lips, 0].argmax()]]
    nose = np.flatnonzero((np.abs(base[:, 0]) < 0.12) & (base[:, 1] > 6.7) & (base[:, 1] < 7.2) & body)
    tip = nose[base[nose, 2].argmax()]
    pupils = centres + np.array([0, 0, radius])
    marks, _ = seen(np.concatenate([pupils, points[[tip, *corners]]]))
    front = body & (base[:, 2] > 0.5) & (base[:, 1] > _CHIN) & (base[:, 1] < _HAIRLINE) & (np.abs(base[:, 0]) < 0.9)
    face, _ = seen(points[front])
    low = np.maximum(face.min(axis=0), 0)
    size = np.minimum(face.max(axis=0), (width, height)) - low
    marks = np.clip(marks - 0.5, 0, np.array([width, height]) - 1)
    told = " ".join(f"{x:.2f} {y:.2f} 0" for x, y in marks)
    return picture, f"{low[0]:.2f} {low[1]:.2f} {size[0]:.2f} {size[1]:.2f} {told}"


def _mixed(rng: np.random.Generator, mesh: Mesh) -> np.ndarray:
    """The points of the mesh of a random person."""
    origins = rng.dirichlet((0.5, 0.5, 0.5))
    sex = float(np.clip(rng.normal(rng.integers(2), 0.15), 0, 1))
    age = float(rng.uniform(0.4, 3))
    points = mesh.points.copy()
    for number, name in enumerate(AGES):
        share = max(0.0, 1 - abs(age - number))
        for weight, sexed in ((1 - sex, SEXES[0]), (sex, SEXES[1])):
            whole = f"macrodetails/universal-{sexed}-{name}-averagemuscle-averageweight.target"
            _move(points, mesh, whole, share * weight)
            for part, origin in zip(origins, ORIGINS, strict=True):
                _move(points, mesh, f"macrodetails/{origin}-{sexed}-{name}.target", share * weight * part)
    shapes = [name for name in mesh.targets if name.startswith("head/") and "trans" not in name]
    for name in rng.choice(shapes, min(3, len(shapes)), replace=False) if shapes else ():
        _move(points, mesh, str(name), float(rng.uniform(0, 0.7)))
    return points


def _move(points: np.ndarray, mesh: Mesh, name: str, share: float) -> None:
    if share > 0:
        indexes, offsets = mesh.targets[name]
        points[indexes] += share * offsets


def _turn(rng: np.random.Generator) -> np.ndarray:
    """A random rotation [3, 3], in which large yaws are more frequent than small ones."""
    yaw = float(rng.uniform(25, LARGEST_YAW) if rng.random() < 0.65 else rng.uniform(0, 25))
    yaw *= float(rng.choice((-1, 1)))
    pitch = float(np.clip(rng.normal(0, 9), -LARGEST_PITCH, LARGEST_PITCH))
    roll = float(np.clip(rng.normal(0, 6), -LARGEST_ROLL, LARGEST_ROLL))
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in np.radians([yaw, pitch, roll]))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def _colours(
    rng: np.random.Generator, mesh: Mesh, points: np.ndarray, centres: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """The colour of every point in full light, RGB float [n, 3], and which points belong to the body, bool [n]."""
    base = mesh.points
    body = np.zeros(len(base), bool)
    body[np.unique(np.concatenate(mesh.parts["body"]))] = True
    dark, light = np.array([62, 38, 28.0]), np.array([240, 203, 182.0])
    skin = dark + (light - dark) * float(rng.beta(1.3, 1.0)) + rng.normal(0, 6, 3)
    waves = sum(np.sin(base @ rng.normal(0, scale, 3) + rng.uniform(0, 6)) for scale in (2, 5, 12))
    colours = skin + 4.0 * waves[:, None]
    lips = np.unique(np.concatenate([mesh.targets[name][0] for name in LIPS]))
    colours[lips] += (skin * (0.95, 0.62, 0.62) - skin) * float(rng.uniform(0.3, 1.1))
    hair = np.array([(20, 16, 14), (60, 40, 26), (110, 78, 44), (190, 160, 110), (170, 168, 165), (120, 50, 25)][
        int(rng.integers(6))], float) + rng.normal(0, 6, 3)  # fmt: skip
    shaggy = 0.06 * waves
    brows = (base[:, 1] > 7.46) & (base[:, 1] < 7.60) & (np.abs(base[:, 0]) > 0.1) & (np.abs(base[:, 0]) < 0.52)
    brows &= (base[:, 2] > 1.0) & body
    colours[brows] += (hair - colours[brows]) * float(rng.uniform(0.2, 0.8))
    if rng.random() < 0.9:
        line = _HAIRLINE + float(rng.normal(0, 0.08)) + shaggy
        behind = (base[:, 2] < 0.30 + shaggy) & (base[:, 1] > 6.75 + shaggy) & (np.abs(base[:, 0]) < 0.80)
        sides = (base[:, 2] < 0.75 + shaggy) & (base[:, 1] > 7.55 + shaggy)
        scalp = body & ((base[:, 1] > line) | behind | sides)
        colours[scalp] = hair + 8.0 * waves[scalp, None]
    if rng.random() < 0.25:  # a beard
        beard = body & (base[:, 1] < 6.85 + shaggy) & (base[:, 1] > 6.1) & (base[:, 2] > 0.4)
        beard[lips] = False
        colours[beard] += (hair - colours[beard]) * float(rng.uniform(0.4, 0.9))
    cloth = body & (base[:, 1] < 5.75 + float(rng.normal(0, 0.1)))
    colours[cloth] = rng.uniform(5, 250, 3)
    colours[np.unique(np.concatenate(mesh.parts["helper-hair"]))] = hair
    iris = rng.uniform((30, 30, 20), (120, 130, 150))
    for centre, side in zip(centres, ("r", "l"), strict=True):
        eye = np.unique(np.concatenate(mesh.parts[f"helper-{side}-eye"]))
        off = np.linalg.norm((points[eye] - centre)[:, :2], axis=1) / radius
        colours[eye] = np.where(off[:, None] < 0.25, 12.0, np.where(off[:, None] < 0.5, iris, 225.0))
    return colours, body


def _paint(
    rng: np.random.Generator, canvas: np.ndarray, mesh: Mesh, turned: np.ndarray, pixels: np.ndarray,
    colours: np.ndarray,
) -> None:  # fmt: skip
    """Draw the polygons of head and shoulders from back to front, each in one colour."""
    long_hair = rng.random() < 0.45
    chosen = [(polygon, 0) for polygon in mesh.parts["body"] if mesh.points[polygon[0], 1] > _CUT]
    chosen += [(polygon, 0) for side in ("r", "l") for polygon in mesh.parts[f"helper-{side}-eye"]]
    if long_hair:
        end = float(rng.uniform(5.2, 6.9))
        for polygon in mesh.parts["helper-hair"]:
            middle = mesh.points[polygon].mean(axis=0)
            before_the_face = middle[2] > 0.5 and middle[1] < _HAIRLINE
            if mesh.points[polygon, 1].min() > end and not before_the_face:
                chosen.append((polygon, 1))
    quads = np.array([(polygon + polygon[-1:])[:4] for polygon, _ in chosen])
    double = np.array([kind for _, kind in chosen], bool)
    corners = turned[quads]
    normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    normals[double & (normals[:, 2] < 0)] *= -1
    # Smooth shading uses the mean of the normals around each corner.
    around = np.zeros_like(turned)
    for column in range(4):
        np.add.at(around, quads[:, column], normals)
    smooth = around[quads].mean(axis=1)
    smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-9)
    sun = np.array([rng.normal(0, 0.7), abs(rng.normal(0.4, 0.5)), 1.0])
    ambient = float(rng.uniform(0.35, 0.75))
    light = ambient + (1.05 - ambient) * np.clip(smooth @ (sun / np.linalg.norm(sun)), 0, 1)
    shown = np.clip(colours[quads].mean(axis=1) * light[:, None] + rng.normal(0, 2, (len(quads), 1)), 0, 255)
    order = np.argsort(corners[:, :, 2].mean(axis=1))
    visible = (normals[:, 2] > 0) | double
    points = np.round(pixels[quads] * 2 * 16).astype(np.int32)
    for index in order[visible[order]]:
        cv2.fillConvexPoly(canvas, points[index], shown[index].tolist(), cv2.LINE_8, 4)


if __name__ == "__main__":
    sys.exit(main())
