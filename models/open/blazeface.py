#!/usr/bin/env python3
"""Convert MediaPipe's full-range BlazeFace to ONNX, as a detector for `--models open` instead of YuNet.

    pip install tflite
    python models/open/blazeface.py face_detection_full_range_sparse.tflite --target SET/detector
    streamgate run VIDEO --models SET,open

The file is in modules/face_detection of the package `mediapipe` (0.10.21), under Apache-2.0. The weights are not
changed. The published network expects a picture of 192 x 192 px, but consists only of convolutions, so it can be run on
pictures of any size. Here it runs on the picture itself and, to find larger faces, on copies scaled to a half and a
quarter of the size. The outputs have YuNet's layout, with one anchor per cell at strides 8, 16 and 32. Each of these
cells covers 2 x 2 cells of the network and takes the values of the one with the best score.

The network finds six points: the eyes, the nose, the middle of the mouth and one point at each ear. The corners of the
mouth are placed to the left and right of its middle, on a line parallel to the eye line. CONSTANTS describes how the
project's boxes differ from the network's, and how wide the mouth is. With --labels FILES, the script fits these
constants to the label files that models/open/compose.py and models/open/heads.py write.

models/open/detector/card.md compares this detector with others. It is not in the package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from models.common.images import DataError, read_rgb  # noqa: E402
from models.common.staging import staged  # noqa: E402
from models.detector.faces import BOX, POINTS  # noqa: E402
from models.detector.labels import read_labels  # noqa: E402
from models.open.tflite_graph import LiteNetwork  # noqa: E402
from streamgate.convert.export import export, noise, write_onnx  # noqa: E402
from streamgate.convert.onnx_check import OPSET  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks.layouts import LAYOUTS  # noqa: E402

FILE_SHA256 = "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1"
FILE_BYTES = 676_746
ONNX_NAME, CARD_NAME = "detector.onnx", "card.json"
CELL = 4
"""Side in pixels of the cells of the network's output."""
LEVELS = 3
"""Number of sizes at which the network runs; each is half of the previous one."""
MULTIPLE = 32
"""Sides of the network's input are multiples of this number of pixels."""
PICTURES = 400
"""Approximate number of pictures to which the constants are fitted. In at least an eighth of these, the network must
find the labelled face."""
SIDES = (160, 224, 320, 448)
"""Long sides, in pixels, to which these pictures are scaled in turn."""
_SURE = 0.5
CONSTANTS = {"across": 0.0008, "down": -0.0654, "wide": 0.9159, "high": 1.195, "mouth": 0.8451}


def main(arguments: list[str] | None = None) -> int:
    """Write the network and its card. Exit status: 0 if they were written, 2 for bad data or a different file (one line
    on stderr)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="face_detection_full_range_sparse.tflite as published by Google")
    parser.add_argument("--labels", nargs="+", type=Path, help="label files of composed portraits and drawn heads")
    parser.add_argument("--target", type=Path, required=True, help="folder of detector.onnx and card.json")
    args = parser.parse_args(arguments)
    try:
        torch.set_num_threads(1)
        graph = BlazeFace(args.file).eval()
        constants = fitted(graph, args.labels) if args.labels else CONSTANTS
        graph.set_constants(constants)
        print(json.dumps(constants), flush=True)
        print(f"wrote {deploy(graph, constants, args.target)}")
    except (DataError, StreamgateError, OSError) as error:
        print(f"blazeface.py: {error}", file=sys.stderr)
        return 2
    return 0


def fitted(graph: BlazeFace, labels: Sequence[Path]) -> dict[str, float]:
    """The constants of the graph: medians over pictures with one face.

    across, down: vector from the centre of the network's box to that of the label's box, as a share of the sides of the
    network's box; wide, high: sides of the label's box divided by those of the network's box; mouth: distance between
    the corners of the mouth divided by the distance between the eyes. Raises DataError if too few faces are found.
    """
    graph.set_constants({"across": 0.0, "down": 0.0, "wide": 1.0, "high": 1.0, "mouth": 0.0})
    found = []
    for file in labels:
        single = [one for one in read_labels(file) if len(one.faces) == 1 and not one.name.startswith("turned")]
        for number, one in enumerate(single[:: max(1, len(single) * len(labels) // PICTURES)]):
            boxes, points, scores, scale = _look(graph, one.path, SIDES[number % len(SIDES)])
            best = int(np.argmax(scores))
            face = one.faces[0] * scale
            if scores[best] >= _SURE:
                found.append(_compared(boxes[best], points[best], face[BOX], face[POINTS].reshape(5, 2)))
    matched = [row for row in found if row is not None]
    if len(matched) < PICTURES / 8:
        raise DataError(f"labelled faces were found in {len(matched)} pictures; at least {PICTURES // 8} are needed")
    print(f"{len(matched)} faces", flush=True)
    medians = np.median(np.array(matched), axis=0)
    return {name: round(float(value), 4) for name, value in zip(CONSTANTS, medians, strict=True)}


def _look(graph: BlazeFace, path: Path, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Boxes, points and scores at all anchors, and the scale factor. Boxes and points are in pixels of the picture
    after its long side was scaled to `side`."""
    picture = read_rgb(path)
    scale = side / max(picture.shape[:2])
    size = [max(1, round(length * scale)) for length in picture.shape[1::-1]]
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    right, bottom = (-length % MULTIPLE for length in size)
    padded = cv2.copyMakeBorder(small, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(123, 117, 104))
    with torch.no_grad():
        values = graph(torch.from_numpy(padded[None]))
    layout = LAYOUTS["yunet"]
    outputs = {name: value[0].numpy() for name, value in zip(layout.outputs, values, strict=True)}
    scores = layout.scores(outputs)
    boxes, points = layout.decode(outputs, padded.shape[:2], np.arange(len(scores)))
    return boxes, points, scores, scale


def _compared(
    box: np.ndarray, points: np.ndarray, label: np.ndarray, landmarks: np.ndarray
) -> tuple[float, float, float, float, float] | None:
    """The values of the five constants for one face; None if the eyes were found in a different place."""
    side, middle = box[2:] - box[:2], (box[:2] + box[2:]) / 2
    eyes = landmarks[1] - landmarks[0]
    distance = float(np.hypot(*eyes))
    if np.abs(points[:2] - landmarks[:2]).max() > 0.35 * max(distance, 0.25 * float(side[0])):
        return None
    moved = ((label[:2] + label[2:]) / 2 - middle) / side
    grown = (label[2:] - label[:2]) / side
    mouth = float((landmarks[4] - landmarks[3]) @ eyes) / distance**2
    return float(moved[0]), float(moved[1]), float(grown[0]), float(grown[1]), mouth


class BlazeFace(nn.Module):
    """The graph that is exported. Input: pictures uint8 (N, H, W, 3) RGB, H and W multiples of 32. Outputs: those of
    the layout `yunet`.
    """

    def __init__(self, file: Path) -> None:
        """Raises DataError if the file is not the published one."""
        super().__init__()
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES + 1)
        if hashlib.sha256(content).hexdigest() != FILE_SHA256:
            raise DataError(f"{file}: not the published BlazeFace (sha256 {FILE_SHA256[:12]}…)")
        self.network = LiteNetwork(content, planes=True, maps=True)
        self.constants = CONSTANTS

    def set_constants(self, constants: dict[str, float]) -> None:
        """Replace the constants by those that `fitted` has returned."""
        self.constants = constants

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        picture = face.permute(0, 3, 1, 2).to(torch.float32) * (1 / 127.5) - 1.0
        scores, boxes, points = [], [], []
        for level in range(LEVELS):
            if level:
                picture = functional.avg_pool2d(picture, 2)
            height, width = picture.shape[2], picture.shape[3]
            # A grey border is added at the bottom and on the right; its cells are cut off again below.
            padded = functional.pad(picture, [0, -width % MULTIPLE, 0, -height % MULTIPLE]) if level else picture
            shifts, odds = self.network(padded)
            best = _best(torch.cat([odds, shifts], 1)[:, :, : height // CELL, : width // CELL])
            score, box, point = self._anchors(best)
            scores.append(score)
            boxes.append(box)
            points.append(point)
        return (*scores, *scores, *boxes, *points)

    def _anchors(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (N, P, 1), boxes (N, P, 4) and points (N, P, 10) of the layout, in units of a cell's side, from the
        cells' values (N, 17, h, w), which are in pixels.
        """
        rows = cells.permute(0, 2, 3, 1).reshape(cells.shape[0], -1, cells.shape[1])
        score = torch.sigmoid(rows[:, :, :1])
        places = rows[:, :, 1:] * (1 / (2 * CELL))
        sides = places[:, :, 2:4].clamp_min(0.01)
        moved = places[:, :, :2] + sides * sides.new_tensor([self.constants["across"], self.constants["down"]])
        grown = torch.log(sides * sides.new_tensor([self.constants["wide"], self.constants["high"]]))
        left, right, nose, mouth = (places[:, :, first : first + 2] for first in (4, 6, 8, 10))
        half = (right - left) * (self.constants["mouth"] / 2)
        return score, torch.cat([moved, grown], 2), torch.cat([left, right, nose, mouth - half, mouth + half], 2)


def _best(cells: Tensor) -> Tensor:
    """Of each block of 2 x 2 cells, the values of the cell with the best score: (N, 17, h, w) -> (N, 17, h / 2, w / 2).

    The first of the 17 values is the score. Input positions are relative to the centre of their cell, output positions
    to the top left corner of the block.
    """
    best = None
    for row in range(2):
        for column in range(2):
            move = [0.0] * cells.shape[1]
            for number in (1, 2, *range(5, cells.shape[1])):
                # Values 3 and 4 are the sides of the box. Of the others, odd numbers are x and even numbers are y.
                move[number] = CELL * ((column if number % 2 else row) + 0.5)
            one = cells[:, :, row::2, column::2] + cells.new_tensor(move)[:, None, None]
            best = one if best is None else torch.where(one[:, :1] > best[:, :1], one, best)
    assert best is not None
    return best


def deploy(graph: BlazeFace, constants: dict[str, float], target: Path) -> str:
    """Write the network and its card into `target`; returns what was written. Raises WeightsError."""
    outputs = LAYOUTS["yunet"].outputs
    model = export(graph, "face", outputs, noise(1, 128, 192, 3), noise(2, 96, 160, 3), free_size=True)
    with staged(target, ONNX_NAME, CARD_NAME) as stage:
        write_onnx(model, stage / ONNX_NAME)
        digest = hashlib.sha256((stage / ONNX_NAME).read_bytes()).hexdigest()
        card = {
            "role": "detector",
            "roles": ["detector"],
            "name": "blazeface-open",
            "version": "1",
            "file": ONNX_NAME,
            "sha256": digest,
            "licence": "Apache-2.0 as published; standing of each part: models/open/PROVENANCE.md",
            "training_data": ["not known (not published by Google)", "constants: portraits A, B; D"],
            "training_steps": 0,
            "constants": constants,
            "distilled_from": ["MediaPipe BlazeFace, full range (Apache-2.0): weights unchanged"],
            "converted_from": {"file": "face_detection_full_range_sparse.tflite", "sha256": FILE_SHA256},
            "research_only": False,
            "input": {},
            "output": {"layout": "yunet"},
            "opset": OPSET,
        }
        (stage / CARD_NAME).write_text(json.dumps(card, indent=2) + "\n")
    return f"{target / ONNX_NAME} {digest[:12]}"


if __name__ == "__main__":
    sys.exit(main())
