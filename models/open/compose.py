#!/usr/bin/env python3
"""Write training pictures for `--models open`: labelled portraits or photographs, and pictures without faces.

    python models/open/compose.py PICTURES... --labels labels.npz --empty EVERYDAY... --out DIR
    python models/open/compose.py PICTURES... --labels labels.npz --snapshots --out DIR
    python models/open/compose.py PICTURES... --labels labels.npz --found found.npz --out DIR

PICTURES are folders or tar files that `label.py` has labelled; EVERYDAY are folders of pictures without faces. The
script writes DIR/images, and DIR/label.txt in the format of `models/detector/labels.py`, for

    python models/open/points.py face-detection-adas-0001.bin --labels DIR/label.txt --work WORK

Hardly any portrait shows a profile. Therefore, portraits with a slightly turned head are also written in a second
version, in which the far half of the face is narrowed, so that the head seems to be turned further. Besides EVERYDAY,
there are two kinds of pictures without faces: cut-outs from the portraits, from below the chin and next to the head
(clothes, hands, flags, shelves), and dead-leaves collages (Lee, Mumford and Huang 2001) of parts of all pictures
without faces, which have edges and textures at every scale, like natural scenes.

With --snapshots, PICTURES are everyday photographs. The script only copies them, without narrowed versions, cut-outs or
collages: they already show faces at all angles, and parts of other faces may be visible at their edges.

With --found (the file that scan.py wrote), PICTURES are photographs of any number of people, and labels.npz was written
by label.py with the same file. A place is labelled as a face if the detector gives it at least the score LIKELY and the
Face Landmarker also finds a face there, or if the score is at least SURE (then possibly without landmarks). All other
places may be faces or not, so they are blurred beyond recognition; a picture that has only such places is left out. A
picture without any place is used as a picture without faces.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from models.common.images import DataError, encode_jpeg, list_sources  # noqa: E402
from models.detector.faces import share_inside  # noqa: E402
from models.open.inputs import read_arrays, usable_picture  # noqa: E402
from models.open.label import box_of  # noqa: E402
from streamgate.tracking.overlap import grown  # noqa: E402

LONGEST = 800
SMALLEST = 20.0
"""Minimum side of a face's box in pixels, after the picture was scaled to LONGEST; pictures with a smaller face are not
used."""
TINIEST = 10.0
"""The same minimum with --found. There, smaller faces are blurred, and the picture is still used."""
LIKELY, SURE = 0.4, 0.8
"""Minimum score at which a place counts as a face: LIKELY if the Face Landmarker also finds a face there, SURE if it
finds none. Without LIKELY, hands and clothes would count as faces, because the Face Landmarker also finds faces in
them if it searches only there."""
MARGIN = 0.2
"""Margin on each side with which a doubtful place is blurred, as a share of its width or height."""
ECHO = 0.1
"""If a doubtful place, with its margin, covers more than this share of a face, it is not blurred."""
BELOW, BESIDE = 0.25, 0.45
"""Distances of the cut-outs from the chin, as a share of the face's height, and from the sides of the face, as a share
of its width (because of the hair)."""
LEAST = 80
"""Minimum side of a cut-out in pixels."""
DRAWN = (480, 640)
TURNED = 0.1
"""Minimum distance of the nose from the middle of the face at which a head counts as turned, as a share of the face's
width."""
SQUEEZED = (0.3, 0.65)
"""Minimum and maximum width of the narrowed far half of the face, as a share of its original width."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data or arguments (one line on stderr)."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pictures", nargs="+", type=Path)
    p.add_argument("--labels", type=Path, required=True)
    p.add_argument("--empty", type=Path, nargs="*", default=[])
    p.add_argument("--drawn", type=int, default=600, help="number of collages")
    p.add_argument("--snapshots", action="store_true", help="only copy the pictures: no narrowed versions or cut-outs")
    p.add_argument("--found", type=Path, help="file that scan.py wrote")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args(arguments)
    if args.found and (args.snapshots or args.empty):
        p.error("--found goes with neither --snapshots nor --empty")
    if args.snapshots:
        args.drawn = 0
    try:
        print(scenes(args) if args.found else compose(args))
    except (DataError, OSError) as error:
        print(f"compose.py: {error}", file=sys.stderr)
        return 2
    return 0


def compose(args: argparse.Namespace) -> str:
    """Write all pictures and labels; returns what was written, for the log. Raises DataError."""
    rows = read_rows(args.labels)
    images = args.out / "images"
    images.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines: list[str] = []
    turned = 0
    empty: list[np.ndarray] = []
    faces = 0
    for source in list_sources(args.pictures):
        digest = hashlib.sha256(source.data).hexdigest()
        picture, meshes = usable_picture(source.data), rows.get(digest)
        if picture is None or not meshes:
            continue
        picture, scale = bounded(picture)
        told = [line_of(mesh * scale, picture.shape) for mesh in meshes]
        if "" in told:
            continue
        name = f"{digest[:16]}.jpg"
        write(images / name, picture)
        lines += [f"# {name}", *told]
        faces += 1
        if args.snapshots:
            continue
        scaled = [mesh * scale for mesh in meshes]
        empty += cuttings(picture, scaled)
        further = turned_further(rng, picture, scaled[0]) if len(scaled) == 1 else None
        if further is not None and (line := line_of(further[1], further[0].shape)):
            write(images / f"turned-{name}", further[0])
            lines += [f"# turned-{name}", line]
            turned += 1
    if not faces:
        raise DataError(f"{args.labels}: has no labelled face of {', '.join(map(str, args.pictures))}")
    for source in list_sources(args.empty):
        picture = usable_picture(source.data)
        if picture is not None and min(picture.shape[:2]) >= LEAST:
            empty.append(bounded(picture)[0])
    drawn = [collage(rng, empty) for _ in range(args.drawn)]
    for number, picture in enumerate([*empty, *drawn]):
        name = f"empty{number:05d}.jpg"
        write(images / name, picture)
        lines.append(f"# {name}")
    (args.out / "label.txt").write_text("\n".join(lines) + "\n")
    made = f"{faces} portraits, {turned} narrowed copies, {len(empty)} pictures without faces, {len(drawn)} collages"
    return f"{args.out}: {made}"


def scenes(args: argparse.Namespace) -> str:
    """With --found: write the photographs and their labels; returns what was written, for the log.

    Raises DataError.
    """
    places: dict[str, list[tuple[np.ndarray, float, np.ndarray]]] = {}
    found, labels = read_arrays(args.found, "box", "score"), read_arrays(args.labels, "mesh")
    if not np.array_equal(found["sha256"], labels["sha256"]):
        raise DataError(f"{args.labels}: its places are not those in {args.found}; run label.py --found")
    if not (np.isfinite(found["box"]).all(axis=1) | (found["score"] == 0)).all():
        raise DataError(f"{args.found}: a place has no finite box; models/open/scan.py writes places")
    for digest, box, score, mesh in zip(
        found["sha256"].tolist(), found["box"], found["score"], labels["mesh"], strict=True
    ):
        kept = places.setdefault(digest, [])
        if score != 0:
            kept.append((box.astype(np.float64), float(score), mesh.astype(np.float64)))
    images = args.out / "images"
    images.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    counts = {"pictures with faces": 0, "pictures without faces": 0, "faces": 0, "blurred places": 0}
    for source in list_sources(args.pictures):
        digest = hashlib.sha256(source.data).hexdigest()
        picture = usable_picture(source.data)
        # Of copies of a file, only the first is used.
        if picture is None or (here := places.pop(digest, None)) is None:
            continue
        picture, scale = bounded(picture)
        picture = picture.copy()
        told, doubtful = [], []
        for box, score, mesh in here:
            agreed = score >= LIKELY and np.isfinite(mesh).all()
            line = line_of(mesh * scale, picture.shape, TINIEST) if agreed else ""
            if not line and score >= SURE:
                line = plain_line(box * scale, picture.shape)
            if line:
                told.append(line)
            else:
                doubtful.append(box * scale)
        faces = np.array([line.split()[:4] for line in told], np.float64).reshape(-1, 4)
        faces[:, 2:] += faces[:, :2]
        # A doubtful place that overlaps a face is mostly the same face, found at another scale.
        wide = grown(np.array(doubtful, np.float64).reshape(-1, 4), MARGIN)
        doubtful = [box for box in wide if not share_inside(faces, box[None]).max(initial=0.0) > ECHO]
        for box in doubtful:
            blur_out(picture, box)
        if doubtful and not told:
            continue
        name = f"{digest[:16]}.jpg"
        write(images / name, picture)
        lines += [f"# {name}", *told]
        counts["pictures with faces" if told else "pictures without faces"] += 1
        counts["faces"] += len(told)
        counts["blurred places"] += len(doubtful)
    if not counts["faces"]:
        raise DataError(f"{args.labels}: contains no face from {', '.join(map(str, args.pictures))}")
    (args.out / "label.txt").write_text("\n".join(lines) + "\n")
    return f"{args.out}: " + ", ".join(f"{count} {what}" for what, count in counts.items())


def plain_line(box: np.ndarray, shape: tuple[int, ...]) -> str:
    """The label of a face without landmarks; "" if it is too small."""
    low, high = np.maximum(box[:2], 0), np.minimum(box[2:], shape[1::-1])
    if (high - low).min() < TINIEST:
        return ""
    return f"{low[0]:.2f} {low[1]:.2f} {high[0] - low[0]:.2f} {high[1] - low[1]:.2f}"


def blur_out(picture: np.ndarray, box: np.ndarray) -> None:
    """Blur the part of the picture inside the box, in place, so strongly that no face can be seen in it."""
    x1, y1 = np.clip(np.floor(box[:2]), 0, picture.shape[1::-1]).astype(int)
    x2, y2 = np.clip(np.ceil(box[2:]), 0, picture.shape[1::-1]).astype(int)
    part = picture[y1:y2, x1:x2]
    if part.size:
        coarse = cv2.resize(part, (3, 3), interpolation=cv2.INTER_AREA)
        part[:] = cv2.resize(coarse, (x2 - x1, y2 - y1), interpolation=cv2.INTER_CUBIC)


def read_rows(file: Path) -> dict[str, list[np.ndarray]]:
    """The meshes float [478, 2] of each picture's faces, by sha256 of the picture. Raises DataError."""
    found: dict[str, list[np.ndarray]] = {}
    arrays = read_arrays(file, "mesh")
    for digest, mesh in zip(arrays["sha256"].tolist(), arrays["mesh"], strict=True):
        if np.isfinite(mesh).all():
            found.setdefault(digest, []).append(mesh.astype(np.float64))
    return found


def line_of(mesh: np.ndarray, shape: tuple[int, ...], smallest: float = SMALLEST) -> str:
    """The label of one face, with its box clipped to the picture. It is "" if the face is too small, if a landmark is
    outside the picture, or if the mesh is seen from behind, which happens with pictures of half a face."""
    height, width = shape[:2]
    x1, y1, x2, y2 = box_of(mesh)
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    points = mesh[[468, 473, 4, 61, 291]]
    inside = (points >= 0).all() and (points < (width, height)).all()
    across, mouth = points[1] - points[0], points[4] - points[3]
    down = points[3:].mean(axis=0) - points[:2].mean(axis=0)
    front = min(across[0] * down[1] - across[1] * down[0], mouth[0] * down[1] - mouth[1] * down[0]) > 0
    if min(x2 - x1, y2 - y1) < smallest or not inside or not front:
        return ""
    marks = " ".join(f"{x:.2f} {y:.2f} 0" for x, y in points)
    return f"{x1:.2f} {y1:.2f} {x2 - x1:.2f} {y2 - y1:.2f} {marks}"


def cuttings(picture: np.ndarray, meshes: list[np.ndarray]) -> list[np.ndarray]:
    """The parts of a picture that are below or next to all its faces, if these parts are large enough."""
    boxes = np.array([box_of(mesh) for mesh in meshes])
    width, height = (boxes[:, 2] - boxes[:, 0]).max(), (boxes[:, 3] - boxes[:, 1]).max()
    parts = (
        picture[int(boxes[:, 3].max() + BELOW * height) :],
        picture[:, : max(0, int(boxes[:, 0].min() - BESIDE * width))],
        picture[:, int(boxes[:, 2].max() + BESIDE * width) :],
    )
    return [np.ascontiguousarray(part) for part in parts if min(part.shape[:2]) >= LEAST]


def turned_further(
    rng: np.random.Generator, picture: np.ndarray, mesh: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """The picture and its mesh with the far half of the face narrowed; None if the head is not turned enough."""
    low, high, nose = float(mesh[:, 0].min()), float(mesh[:, 0].max()), float(mesh[4, 0])
    off = (nose - (low + high) / 2) / (high - low)
    width = picture.shape[1]
    if abs(off) < TURNED or not 1 < low < nose - 1 < nose + 1 < high < width - 1:
        return None
    # Columns before and after: the far half of the face becomes narrower, and the background behind it is moved.
    gain = float(rng.uniform(*SQUEEZED))
    far = gain * (nose - low) if off < 0 else gain * (high - nose)
    before = np.array([0, low, nose, high, width - 1], np.float64)
    after = before.copy()
    if off < 0:
        after[:2] += (nose - low) - far
    else:
        after[3:] -= (high - nose) - far
    after -= after[0]
    places = np.interp(np.arange(round(after[-1]) + 1), after, before).astype(np.float32)
    rows = np.arange(picture.shape[0], dtype=np.float32)
    x, y = np.meshgrid(places, rows)
    moved = mesh.copy()
    moved[:, 0] = np.interp(mesh[:, 0], before, after)
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR), moved


def collage(rng: np.random.Generator, pictures: list[np.ndarray]) -> np.ndarray:
    """A collage, uint8 [480, 640, 3] RGB: overlapping shapes of all sizes, plain, shaded or with parts of pictures."""
    height, width = DRAWN
    canvas = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(int(rng.integers(40, 160))):
        radius = float(np.exp(rng.uniform(np.log(10), np.log(260))))
        middle = rng.uniform((0, 0), (width, height))
        low = np.maximum(middle - radius, 0).astype(int)
        high = np.minimum(middle + radius, (width, height)).astype(int)
        if (high - low < 3).any():
            continue
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        mask = outline(rng, size)
        part = canvas[low[1] : high[1], low[0] : high[0]]
        part[mask] = fill(rng, size, pictures)[mask]
    return cv2.GaussianBlur(canvas, (0, 0), 0.6) if rng.random() < 0.5 else canvas


def outline(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """bool [h, w]: an ellipse, a rectangle or a polygon."""
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    kind = int(rng.integers(3))
    if kind == 0:
        cv2.ellipse(mask, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 1, -1)
    elif kind == 1:
        mask[:] = 1
    else:
        points = rng.uniform(0, 1, (int(rng.integers(3, 8)), 2)) * size
        cv2.fillPoly(mask, [cv2.convexHull(points.astype(np.int32))], 1)
    return mask > 0


def fill(rng: np.random.Generator, size: tuple[int, int], pictures: list[np.ndarray]) -> np.ndarray:
    """The content of one shape, uint8 [h, w, 3]; pictures: the content may be a part of one of these."""
    width, height = size
    if pictures and rng.random() < 0.6:
        picture = pictures[int(rng.integers(len(pictures)))]
        side = int(rng.integers(min(40, *picture.shape[:2]), min(picture.shape[:2]) + 1))
        y, x = (int(rng.integers(0, length - side + 1)) for length in picture.shape[:2])
        return cv2.resize(picture[y : y + side, x : x + side], size, interpolation=cv2.INTER_LINEAR)
    ends = rng.integers(0, 256, (2, 3)).astype(np.float32)
    ramp = np.linspace(0, 1, width if rng.random() < 0.5 else height, dtype=np.float32)
    ramp = np.broadcast_to(ramp[None, :] if len(ramp) == width else ramp[:, None], (height, width))[..., None]
    shaded = ends[0] + (ends[1] - ends[0]) * ramp * float(rng.random() < 0.6)
    grain = rng.normal(0, float(rng.uniform(0, 25)), (height, width, 1))
    return np.clip(shaded + grain, 0, 255).astype(np.uint8)


def bounded(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """The picture, scaled down to a long side of at most LONGEST, and the factor by which it was scaled."""
    scale = min(1.0, LONGEST / max(picture.shape[:2]))
    if scale == 1.0:
        return picture, 1.0
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


def write(path: Path, picture: np.ndarray) -> None:
    """Write a JPEG file of high quality."""
    path.write_bytes(encode_jpeg(picture, 94))


if __name__ == "__main__":
    sys.exit(main())
