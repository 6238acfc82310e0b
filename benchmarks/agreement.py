"""Which measures agree with human labels, and with the level of a degradation? Measured by `streamgate compare`.

    python benchmarks/agreement.py WORK [VIDEOS] [--labels picks.json] [--every 1] [--faces hq_val] [--most 40]

The script writes the labelled faces (cut from their clips with a margin) and degraded faces (each clean face once per
kind and level) to WORK, with a table of each. It runs `streamgate compare` on both tables, prints the results and
writes its section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from common import SHARED, Machine, arguments, heading, publish, say, table
from picks import Track, read_labels
from processes import streamgate

from models.ifqa.protocol import KINDS, LEVELS, grade
from streamgate.sources import discover

SAME_TIME_S = 0.02
MARGIN = 0.8
"""Margin on each side, as a share of the longer side of the box."""
SIDE = 256
WORDS = {"g": "good", "m": "usable", "b": "bad"}


def main() -> int:
    given = _arguments()
    given.work.mkdir(parents=True, exist_ok=True)
    preset = given.work / "measures.toml"
    preset.write_text(LIGHTQNET.format(given.weights / "lightqnet-dm100.onnx"))
    # Only the parameters of NIQE and BRISQUE are pulled; the networks are those in the package.
    environment = os.environ | {"STREAMGATE_MODELS": str((given.work / "models").absolute())}
    streamgate("models", "pull", "measures", "--mirror", given.weights, "--quiet", environment=environment)
    parts = []
    for title, path, measures, options in (
        ("Faces labelled good, usable or bad", labelled(given), given.measures, ["--cluster", "track"]),
        ("Degraded faces", degraded(given), given.picture_measures,
         ["--group", "kind", "--cluster", "face", "--aligned", "ffhq"]),
    ):  # fmt: skip
        numbers = path.with_suffix(".results.csv")
        done = streamgate(
            "compare", path, "--measures", measures, *options, "--preset", preset, "--csv", numbers,
            "--html", path.with_suffix(".html"), environment=environment,
        )  # fmt: skip
        say(done.stdout + done.stderr)
        note = done.stdout.splitlines()[0].replace(str(path), path.name)
        parts += ["", f"### {title}", "", note, "", _table(numbers)]
    publish(given.results, "agreement", [
        *heading("Agreement of measures with people", Machine.here()), "",
        "Positive values mean agreement. The 95 % intervals are from a bootstrap over tracks (labelled faces) or over "
        "clean faces (degraded faces). For degraded faces, the column 'human' is the level of degradation, with a "
        "negative sign. [Labels](../docs/labels.md) explains the coefficients. NIQE and BRISQUE are measures of the "
        "package; LightQNet is an ONNX file that a preset defines as a measure.", *parts,
    ])  # fmt: skip
    return 0


LIGHTQNET = """extends = "studio"

[measures.lightqnet]
onnx = "{}"
crop = "points"
points = [[0.3419, 0.4616], [0.6565, 0.4598], [0.5012, 0.8240]]
size = 96
range = [-1.0, 0.9921875]
"""


def labelled(given: argparse.Namespace) -> Path:
    """The table of the labelled faces; existing pictures are not cut again."""
    rows = []
    for track in read_labels(given.labels):
        path = given.videos / track.clip
        if path.is_file():
            name = f"{track.clip} {track.name}"
            rows += [[image, WORDS[label], name] for image, label in cut(path, track, given.work, given.every)]
    return _write(given.work / "labelled.csv", ["image", "label", "track"], rows)


def cut(clip: Path, track: Track, work: Path, every: int) -> Iterable[tuple[str, str]]:
    """Pairs of a picture's path relative to `work` and its label, for every `every`th labelled face of a track."""
    stem = f"labelled/{clip.stem}_{track.name}_".replace(" ", "_")
    named = [(f"{stem}{face.pts:.3f}.png", face) for face in track.faces[::every]]
    if any(not (work / name).is_file() for name, _ in named):
        (work / "labelled").mkdir(parents=True, exist_ok=True)
        with discover([clip]).sources[0].open() as source:
            for frame in source.frames():
                for name, face in named:
                    if abs(face.pts - frame.pts_seconds) <= SAME_TIME_S:
                        _save(work / name, _around(frame.picture, face.box))
                del frame
    return [(name, face.label) for name, face in named if (work / name).is_file()]


def _around(picture, box: np.ndarray) -> np.ndarray:
    middle, half = (box[:2] + box[2:]) / 2, (0.5 + MARGIN) * float((box[2:] - box[:2]).max())
    x1, y1 = np.maximum(0, np.floor(middle - half)).astype(int)
    x2, y2 = np.minimum([picture.width, picture.height], np.ceil(middle + half)).astype(int)
    side = max(x2 - x1, y2 - y1)
    matrix = np.array([[1.0, 0.0, -x1], [0.0, 1.0, -y1]])
    return picture.warp(matrix, int(side))[: y2 - y1, : x2 - x1]


def degraded(given: argparse.Namespace) -> Path:
    """The table of clean and degraded faces; the human score is minus the level, 0 for a clean face."""
    rows = []
    (given.work / "degraded").mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(sorted(given.faces.iterdir())[: given.most]):
        face = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        face = cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for kind in KINDS:
            for level in range(0, LEVELS + 1, 2):
                name = f"degraded/{path.stem}_{kind.replace(' ', '-')}_{level}.png"
                if not (given.work / name).is_file():
                    _save(given.work / name, face if level == 0 else grade(kind, face, level - 1, number))
                rows.append([name, str(-level), kind, path.stem])
    return _write(given.work / "degraded.csv", ["image", "human", "kind", "face"], rows)


def _save(path: Path, picture: np.ndarray) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _write(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def _table(numbers: Path) -> str:
    with open(numbers, newline="") as file:
        found = list(csv.DictReader(file))
    figures = ("srcc", "krcc", "plcc", "auc")
    rows = [
        [row["group"] or "all", row["measure"], row["rows"], *(_cell(row, name) for name in figures)] for row in found
    ]
    return table(["group", "measure", "rows", "SRCC", "KRCC", "PLCC", "AUC good / bad"], rows)


def _cell(row: dict[str, str], name: str) -> str:
    ends = [f"{float(row[f'{name}_{end}']):.2f}" for end in ("low", "high") if row[f"{name}_{end}"]]
    return f"{float(row[name]):.3f} ({' to '.join(ends)})" if row[name] else ""


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__, videos=False)
    parser.add_argument("work", type=Path)
    parser.add_argument("videos", nargs="?", type=Path, default=SHARED / "videos")
    parser.add_argument("--labels", type=Path, default=SHARED / "labels" / "picks.json")
    parser.add_argument("--faces", type=Path, default=SHARED / "faces" / "hq_val")
    parser.add_argument("--every", type=int, default=1, help="use only every Nth labelled face of a track")
    parser.add_argument("--most", type=int, default=40, help="number of clean faces to degrade")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="with LightQNet, NIQE and BRISQUE")
    parser.add_argument("--measures", help="measures for the labelled faces", default=(
        "quality,serfiq,ifqa,yaw,pitch,roll,size,edge,sharpness,exposure,occlusion,eyes,mouth,expression,gaze,"
        "lightqnet,niqe,brisque"
    ))  # fmt: skip
    parser.add_argument("--picture-measures", help="measures for the degraded faces", default=(
        "ifqa,serfiq,sharpness,lightqnet,niqe,brisque"
    ))  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
