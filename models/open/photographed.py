#!/usr/bin/env python3
"""Train the head `real` of the open expression network on photographed portraits and on drawings of many kinds.

    python models/open/crops.py PICTURES... --labels labels.npz --out DIR
    python models/open/hands.py MAKEHUMAN/makehuman/data PICTURES... --out DIR/covers.npz
    python models/open/heads.py MAKEHUMAN/makehuman/data --count 1400 --out HEADS
    python models/open/crops.py SNAPSHOTS... --labels snapshots.npz --out SNAPSHOT_CROPS
    python models/open/photographed.py face_landmarker.task --work DIR --heads HEADS --snapshots SNAPSHOT_CROPS
    python models/open/photographed.py --table FACES     # no training: the card's table, with the embedded network

Photographs are the snapshots, and the portraits that kinds.txt does not list. Drawings are the paintings in kinds.txt,
MakeHuman's heads, and photographs turned into paintings, prints, statues, dolls and cartoons (cartoons.py). Statistics
of the published network's maps are computed once for every face and for some degraded views of it; the head is then
trained in seconds and written to models/open/expression/heads.pth. FACES is the folder `real` of
`models/expression/real.py`; the table uses those of its sources that are listed as `held_out` in
models/expression/config.toml.

The limit is chosen with ratings of photographs by heads that were not trained on them: all faces are divided into
parts, and each part is rated by a head that was trained on the other parts.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

# Threads that spin while they wait starve each other on a shared machine. This must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from models.common.images import DataError, decode_rgb  # noqa: E402
from models.common.report import Section, put_between  # noqa: E402
from models.common.statistics_head import fit_statistics_head  # noqa: E402
from models.common.stats import mean_estimate  # noqa: E402
from models.common.training import read_config, say  # noqa: E402
from models.expression import realfaces  # noqa: E402
from models.expression.batches import Augmentation  # noqa: E402
from models.expression.covers import KINDS, Bank, paste  # noqa: E402
from models.expression.covers import draw as draw_cover  # noqa: E402
from models.expression.cutouts import load_bank  # noqa: E402
from models.expression.dataset import MARGIN, FaceSet, align, canvas_matrix, prepare  # noqa: E402
from models.expression.faces import read_crops  # noqa: E402
from models.expression.network import OwnNetwork  # noqa: E402
from models.open.cartoons import draw  # noqa: E402
from models.open.covered import coloured_light  # noqa: E402
from models.open.crops import NAME  # noqa: E402
from models.open.inputs import read_kinds  # noqa: E402
from models.open.trunk import PhotographHead, Trunk, write_head  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402

BEGIN, END = "<!-- real: begin (written by photographed.py) -->", "<!-- real: end -->"
_EDGE = MARGIN - realfaces.MARGIN


@dataclass(frozen=True)
class Rows:
    """The head's input for faces of one kind.

    real: they are photographs; figures: float32 [n, FIGURES, 1, 1]; part: the part to which each row belongs, int64
    [n]; share: total weight of the rows, relative to that of the other groups of photographs (or of drawings).
    """

    real: bool
    figures: Tensor
    part: Tensor
    share: float


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data or arguments (one line on stderr)."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("task", type=Path, nargs="?", help="face_landmarker.task as published by Google")
    p.add_argument("--work", type=Path, help="the folder with crops and covers.npz")
    p.add_argument("--heads", type=Path, help="the folder that heads.py wrote")
    p.add_argument("--snapshots", type=Path, help="the folder that crops.py wrote for the snapshots")
    p.add_argument("--config", type=Path, default=HERE / "expression/config.toml")
    p.add_argument("--target", type=Path, default=HERE / "expression", help="folder of heads.pth and card.md")
    p.add_argument("--table", type=Path, metavar="FACES", help="do not train: only write the table into card.md")
    args = p.parse_args(arguments)
    if not args.table and not (args.task and args.work and args.heads):
        p.error("give the task file, --work and --heads, or --table")
    try:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        if args.table:
            section = table(args.target, args.table)
            say(section.markdown())
            put_between(args.target / "card.md", BEGIN, END, section.markdown())
        else:
            train(args)
    except (DataError, StreamgateError, OSError, ValueError) as error:
        print(f"photographed.py: {error}", file=sys.stderr)
        return 2
    return 0


def train(args: argparse.Namespace) -> None:
    """Compute the statistics, train the head, choose its limit, and write it."""
    config = read_config(args.config)
    settings = config["real"]
    trunk = Trunk(args.task, "real")
    faces = prepare([args.work / "crops" / NAME], args.work / "aligned", config["visible"]["smallest_eyes"])
    how = config.make(Augmentation, "augment", degraded=settings["degraded"])
    index, _ = read_crops(args.work / "crops" / NAME)
    sizes = dict(zip(index["names"], index["eyes"], strict=True))
    bank = load_bank(args.work / "covers.npz")
    groups = portrait_rows(trunk, faces, sizes, bank, settings, how, config["seed"])
    groups.append(head_rows(trunk, args.heads, settings, how, config["seed"]))
    if args.snapshots:
        if missing := {"drawn_snapshots", "snapshots_share"} - settings.keys():
            raise DataError(f"{args.config}: [real] has no {', '.join(sorted(missing))}, which --snapshots needs")
        crops, aligned = args.snapshots / "crops" / NAME, args.snapshots / "aligned"
        snapshots = prepare([crops], aligned, config["visible"]["smallest_eyes"])
        groups += snapshot_rows(trunk, snapshots, bank, settings, how, config["seed"])
    say(", ".join(f"{len(each.figures)} {'photographs' if each.real else 'drawings'}" for each in groups))
    head = fit(groups, settings, config["seed"])
    told = {
        "training_steps": settings["steps"],
        "photographs": sum(len(each.figures) for each in groups if each.real),
        "drawings": sum(len(each.figures) for each in groups if not each.real),
        "training_data": [
            "portraits A, B",
            *(["FairFace (F)"] if args.snapshots else []),
            "photographs painted over, and drawn faces (E)",
            "MakeHuman heads (D)",
        ],
    }
    write_head(args.target, "real", head, told)
    say(f"wrote the head `real` to {args.target}")


def portrait_rows(
    trunk: Trunk,
    faces: FaceSet,
    sizes: dict[str, float],
    bank: Bank,
    settings: dict[str, Any],
    how: Augmentation,
    seed: int,
) -> list[Rows]:
    """The rows of the portraits: large photographs, other photographs, paintings, and drawings made from photographs.
    Each portrait has several views.

    sizes: distance between the eyes in the source, in pixels, by the name of the face; bank: for covers, which are
    drawn on some of the faces.
    """
    kinds = read_kinds()
    rng = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {"large": [], "small": [], "painting": [], "drawn": []}
    parts: dict[str, list[int]] = {name: [] for name in found}
    for i, name in enumerate(faces.names):
        kind = kinds.get(name[:16], "photograph")
        part = int(name[8:16], 16) % settings["parts"]
        canvas = np.ascontiguousarray(faces.canvases[i])
        if kind == "painting":
            made = {"painting": [canvas] * settings["of_paintings"]}
        elif kind == "photograph":
            kind = "large" if sizes[name] >= settings["large_eyes"] else "small"
            count = settings[f"of_{kind}"]
            made = {kind: [canvas] * count}
            if kind == "large" or rng.random() < settings["drawn"]:
                made["drawn"] = [draw(canvas, faces.points[i], rng) for _ in range(count)]
        else:
            continue
        for into, pictures in made.items():
            for number, picture in enumerate(pictures):
                found[into].append(_varied(picture, faces.points[i], bank, settings, how, rng, number))
                parts[into].append(part)
    shares = {"large": 0.5, "small": 0.5, "painting": settings["paintings_share"], "drawn": 1.0}
    return [
        Rows(name in ("large", "small"), trunk.figures(np.stack(crops)), torch.tensor(parts[name]), shares[name])
        for name, crops in found.items()
        if crops
    ]


def snapshot_rows(
    trunk: Trunk, faces: FaceSet, bank: Bank, settings: dict[str, Any], how: Augmentation, seed: int
) -> list[Rows]:
    """The rows of the snapshots, and of drawings made from some of them, with one view of each.

    Arguments: see `portrait_rows`.
    """
    rng = np.random.default_rng((seed, 2))
    found: dict[bool, list[np.ndarray]] = {True: [], False: []}
    parts: dict[bool, list[int]] = {True: [], False: []}
    for i, name in enumerate(faces.names):
        canvas = np.ascontiguousarray(faces.canvases[i])
        pictures = {True: canvas}
        if rng.random() < settings["drawn_snapshots"]:
            pictures[False] = draw(canvas, faces.points[i], rng)
        for real, picture in pictures.items():
            found[real].append(_varied(picture, faces.points[i], bank, settings, how, rng, i))
            parts[real].append(int(name[8:16], 16) % settings["parts"])
    return [
        Rows(real, trunk.figures(np.stack(crops)), torch.tensor(parts[real]), settings["snapshots_share"])
        for real, crops in found.items()
        if crops
    ]


def _varied(
    picture: np.ndarray,
    points: np.ndarray,
    bank: Bank,
    settings: dict[str, Any],
    how: Augmentation,
    rng: np.random.Generator,
    number: int,
) -> np.ndarray:
    """A view of a canvas, uint8 [144, 128, 3] RGB; at random with a drawn cover, and at random in coloured light."""
    changed = picture.copy()
    if rng.random() < settings["covered"]:
        _cover(changed, points, bank, rng)
    if rng.random() < settings["lit"]:
        changed = coloured_light(changed, rng)
    return _crop(changed, how, rng, number)


def _cover(canvas: np.ndarray, points: np.ndarray, bank: Bank, rng: np.random.Generator) -> None:
    """Draw a cover into the middle of a canvas, in place. Photographs and drawings are covered equally often, so that
    a cover does not tell the head which of the two it sees.
    """
    crop = canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]
    kind = list(KINDS)[int(rng.integers(len(KINDS)))]
    crop[:] = paste(crop, draw_cover(crop, points - MARGIN, rng, bank, kind))


def _crop(canvas: np.ndarray, how: Augmentation, rng: np.random.Generator, number: int) -> np.ndarray:
    """A view, uint8 [144, 128, 3] RGB, of a canvas of `dataset.py`. Half of the views with an even number are the
    unchanged middle of the canvas; all others are random (`realfaces.view`).
    """
    inner = np.ascontiguousarray(canvas[_EDGE:-_EDGE, _EDGE:-_EDGE])
    if number % 2 == 0 and rng.random() < 0.5:
        return realfaces.centre(inner[None])[0]
    return realfaces.view(inner, how, rng)


def head_rows(trunk: Trunk, folder: Path, settings: dict[str, Any], how: Augmentation, seed: int) -> Rows:
    """The rows of MakeHuman's heads that are large enough and not turned far from the camera.

    folder: what heads.py wrote. Raises DataError if there is no such head.
    """
    rng = np.random.default_rng((seed, 1))
    crops, parts, name = [], [], ""
    for line in (folder / "label.txt").read_text().splitlines():
        if line.startswith("#"):
            name = line[1:].strip()
            continue
        values = [float(word) for word in line.split()]
        landmarks = np.array(values[4:]).reshape(5, 3)[:, :2]
        eyes, across = landmarks[:2].mean(axis=0), landmarks[1] - landmarks[0]
        if across[0] < settings["smallest_heads"] or abs(landmarks[2, 0] - eyes[0]) > 0.5 * across[0]:
            continue
        picture = decode_rgb((folder / "images" / name).read_bytes())
        if picture is None:
            continue
        canvas = align(picture, canvas_matrix(landmarks))
        if rng.random() < 0.5:
            # Renders of games and films have smooth shading and sharp edges.
            canvas = cv2.bilateralFilter(canvas, 9, 30, 4)
            soft = cv2.GaussianBlur(canvas, (0, 0), 1.5)
            canvas = cv2.addWeighted(canvas, 1.8, soft, -0.8, 0)
        crops.append(_crop(canvas, how, rng, 0))
        parts.append(len(parts) % settings["parts"])
    if not crops:
        raise DataError(f"{folder}: no head is large enough and turned towards the camera")
    return Rows(False, trunk.figures(np.stack(crops)), torch.tensor(parts), settings["heads_share"])


def fit(groups: list[Rows], settings: dict[str, Any], seed: int) -> PhotographHead:
    """The trained head, shifted so that the limit of 0.5 rejects the share `lost` of the photographs, where each part
    is rated by a head that was not trained on it.
    """
    torch.manual_seed(seed)
    unseen, wanted = [], []
    for part in range(settings["parts"]):
        head = fit_once(groups, settings, part)
        for each in groups:
            left = each.part == part
            unseen.append(head.logits(each.figures[left]))
            wanted.append(torch.full((int(left.sum()),), float(each.real)))
    logits, real = torch.cat(unseen), torch.cat(wanted) > 0.5
    limit = torch.quantile(logits[real], settings["lost"])
    say(f"in held-out parts, {100 * float((logits[~real] < limit).float().mean()):.1f} % of the drawings are "
        f"rejected at the limit that rejects {100 * settings['lost']:.1f} % of the photographs")  # fmt: skip
    head = fit_once(groups, settings, -1)
    head.photograph.bias -= limit
    return head


def fit_once(groups: list[Rows], settings: dict[str, Any], left_out: int) -> PhotographHead:
    """A head trained on all parts except `left_out` (-1: on all parts), before it is shifted to fit the limit."""
    kept = [(each, each.figures[each.part != left_out]) for each in groups]
    rows = torch.cat([found for _, found in kept])
    wanted = torch.cat([torch.full((len(found),), float(each.real)) for each, found in kept])
    weight = torch.cat([torch.full((len(found),), each.share / max(len(found), 1)) for each, found in kept])
    head = PhotographHead()
    fit_statistics_head(head, rows, wanted, weight, settings)
    return head.eval().requires_grad_(False)


def table(target: Path, faces: Path) -> Section:
    """Share of rejected faces of the held-out sources, by kind, for this network and the embedded one."""
    config = read_config(HERE.parent / "expression/config.toml")
    held = [source for source in realfaces.read_sources(faces) if source.name in config["real"]["held_out"]]
    networks = {"this": OwnNetwork(target), "the embedded network": OwnNetwork(HERE.parent / "expression")}
    section = Section(
        "Not a photograph",
        ["faces", "number", *networks],
        note="Share of faces rejected at the limit of 0.5, with 95 % bootstrap intervals. No face of these sources was "
        "used for training or for choosing the limit.",
    )
    for real, name in ((False, "drawings"), (True, "photographs")):
        groups: dict[str, list[list[np.ndarray]]] = {}
        for source in (source for source in held if source.real == real):
            crops = realfaces.centre(source.canvases)
            below = [(own.run(crops).real < 0.5).astype(float) for own in networks.values()]
            for kind in (source.kind, f"all {name}"):
                groups.setdefault(kind, []).append(below)
        for kind in sorted(groups, key=lambda kind: (kind.startswith("all"), kind)):
            columns = [np.concatenate(parts) for parts in zip(*groups[kind], strict=True)]
            cells = [mean_estimate(below).text(1, percent=True) for below in columns]
            section.rows.append([kind, str(len(columns[0])), *cells])
    return section


if __name__ == "__main__":
    sys.exit(main())
