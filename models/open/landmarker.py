#!/usr/bin/env python3
"""The expression network of the set `open`: MediaPipe's Face Landmarker, its weights unchanged, as one ONNX file.

    pip install tflite
    python models/open/landmarker.py face_landmarker.task PICTURES... --labels labels.npz
    python models/open/landmarker.py face_landmarker.task        # keeps the constants of the committed network

Two networks of the published file (Apache-2.0) are joined: the network that finds 478 points on a face, and the network
that computes 52 blendshapes from 146 of these points. Except for the heads, the rest of the graph has no learned
weights. It enlarges the crop to the input size of the first network, computes lengths from the points
(`models.expression.dataset.measured`), and computes the rotation of the head that best maps the file's mean face to the
points (Kabsch), with the file's weights of the points. A few constants are fitted to portraits (PICTURES, with the
labels of label.py), see `corrected`.

Two small heads of our own are read from models/open/expression/heads.pth and added: `visible` (trained by covered.py)
and `real` (trained by photographed.py). They use the maps of the network of points. A head that has not been trained
yet is left out.

The script writes models/open/expression/expression.onnx and its card.json, each by one rename.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from models.common.images import DataError, decode_rgb  # noqa: E402
from models.common.staging import staged  # noqa: E402
from models.common.training import read_config  # noqa: E402
from models.expression.architecture import (  # noqa: E402
    BLENDSHAPES,
    LOOK_ABOVE,
    LOOK_ACROSS,
    POINTS,
    SIGNALS,
    visible_share,
)
from models.expression.dataset import (  # noqa: E402
    INNER_LIPS,
    LEFT_CORNERS,
    LEFT_LIDS,
    MOUTH,
    RIGHT_CORNERS,
    RIGHT_LIDS,
    align,
)
from models.expression.deploy import CARD_NAME, ONNX_NAME  # noqa: E402
from models.open.portraits import labelled_pictures  # noqa: E402
from models.open.tflite_graph import LiteNetwork  # noqa: E402
from models.open.trunk import HEADS, TAPS, read_heads, shown, trained  # noqa: E402
from streamgate.convert.export import export, noise, write_onnx  # noqa: E402
from streamgate.convert.onnx_check import OPSET  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.measures.gaze import EYES_TURN  # noqa: E402
from streamgate.networks.alignment import (  # noqa: E402
    EXPRESSION_EYE_DISTANCE,
    EXPRESSION_EYE_ROW,
    EXPRESSION_SIZE,
    expression_matrix,
)

TASK_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
TASK_BYTES = 3_758_596
OUTPUTS = ("pose", "signals", "points")
"""The outputs that do not come from a head."""
SIDE = 256
"""Side in pixels of the square that is the input of the network of points."""
SQUARE, BELOW = 3.7, 0.6
"""Side of this square, and distance of its centre below the eyes, in distances between the eyes. Of 14 pairs of values,
this one had the smallest deviations from the Face Landmarker itself on 165 portraits. Outside the crop, its border
pixels are repeated."""
SHAPE_POINTS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80, 81,
    82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153, 154,
    155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263,
    267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321,
    323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387,
    388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)  # fmt: skip
"""The points from which the blendshapes are computed (MediaPipe's `face_blendshapes_graph.cc`)."""
EVERY, SMALLEST_EYES, FEWEST = 3, 35.0, 200
"""The constants are fitted to one in EVERY portraits whose eyes are more than SMALLEST_EYES pixels apart; there must be
at least FEWEST."""
BROW = 0.35
"""Factor of the signal `browInnerUp`. For many people at rest, the published network's value is high (0.2 to 0.9); then
it alone determines the measure `expression`. Of the factors 1, 0.6, 0.35, 0.2 and 0, this one best separates the good
faces among the labelled ones from those with a flawed expression or mouth."""
_ROUNDS = 10


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 bad data or not the published file (one line on stderr)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", type=Path, help="face_landmarker.task as published by Google")
    parser.add_argument("pictures", nargs="*", type=Path, help="folders or tar files of portraits")
    parser.add_argument("--labels", type=Path, help="the file that label.py wrote for the portraits")
    parser.add_argument("--target", type=Path, default=HERE / "expression", help="folder of heads.pth and the output")
    args = parser.parse_args(arguments)
    if bool(args.pictures) != bool(args.labels):
        parser.error("give PICTURES and --labels, or neither")
    try:
        torch.set_num_threads(1)
        heads = read_heads(args.target)
        graph = LandmarkGraph(args.task, heads=heads).eval()
        if args.pictures:
            faces = portraits(args.pictures, args.labels)
            print(f"{len(faces)} portraits", flush=True)
            fitted = corrected(graph, faces)
        else:
            fitted = kept(graph, args.target)
        print(f"wrote {deploy(graph, fitted, heads, args.target)}")
    except (DataError, StreamgateError, OSError) as error:
        print(f"landmarker.py: {error}", file=sys.stderr)
        return 2
    return 0


def portraits(pictures: list[Path], labels: Path) -> np.ndarray:
    """Crops uint8 (n, 144, 128, 3) of one in EVERY labelled pictures. Raises DataError if there are too few."""
    crops = []
    for digest, landmarks, content in labelled_pictures(pictures, labels):
        if int(digest[:8], 16) % EVERY or not np.hypot(*(landmarks[1] - landmarks[0])) > SMALLEST_EYES:
            continue
        picture = decode_rgb(content)
        if picture is not None:
            crops.append(align(picture, expression_matrix(landmarks), EXPRESSION_SIZE))
    if len(crops) < FEWEST:
        raise DataError(f"only {len(crops)} usable portraits: at least {FEWEST} are needed")
    return np.array(crops)


def corrected(graph: LandmarkGraph, faces: np.ndarray) -> dict[str, float]:
    """Fit the constants `shift` and `gain` of a graph to portraits, in place; returns their description for the card.

    shift: the published network is not symmetric: if a face is mirrored, blendshapes that should swap sides differ by
    up to 0.07. Half of the mean difference is subtracted from each side. gain: people in portraits are assumed to look
    into the camera, so that the eyes are turned back by the angle by which the head is turned away. The `eyeLook`
    signals are scaled so that this is the case, on average, when 1 corresponds to EYES_TURN degrees, as in the measure
    `gaze`.
    """
    pose, signals = _run(graph, faces)
    _, mirrored = _run(graph, np.ascontiguousarray(faces[:, :, ::-1]))
    swapped = [SIGNALS.index(_other_side(name)) for name in SIGNALS]
    # The points, and the lengths between them, are not changed.
    shift = (signals - mirrored[:, swapped]).mean(axis=0) / 2 * np.array([name in BLENDSHAPES for name in SIGNALS])
    gain = np.ones(len(SIGNALS), np.float32)
    turns = {}
    for axis, (name, weights) in enumerate({"across": LOOK_ACROSS, "above": LOOK_ABOVE}.items()):
        chosen = [SIGNALS.index(one) for one in weights]
        eyes = (signals - shift)[:, chosen] @ np.array(list(weights.values()))
        turns[name] = _slope(-eyes, pose[:, axis])
        gain[chosen] = turns[name] / EYES_TURN
    gain[SIGNALS.index("browInnerUp")] = BROW
    graph.shift.copy_(torch.from_numpy(shift.astype(np.float32)))
    graph.gain.copy_(torch.from_numpy(gain))
    return {"portraits": len(faces), **{f"degrees of {name}": round(turn, 1) for name, turn in turns.items()}}


def kept(graph: LandmarkGraph, folder: Path) -> dict[str, float]:
    """Set `shift` and `gain` of a graph, in place, to those of the network in the folder; returns the description of
    these constants from its card.

    Raises DataError if there is no such network.
    """
    import onnx

    try:
        constants = {
            one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(folder / ONNX_NAME).graph.initializer
        }
        graph.shift.copy_(torch.from_numpy(constants["shift"].astype(np.float32)))
        graph.gain.copy_(torch.from_numpy(constants["gain"].astype(np.float32)))
        graph.gain[SIGNALS.index("browInnerUp")] = BROW
        return dict(json.loads((folder / CARD_NAME).read_text())["constants"])
    except (OSError, KeyError) as error:
        raise DataError(
            f"{folder}: no network whose constants can be kept ({error}); give PICTURES and --labels"
        ) from error


def _run(graph: LandmarkGraph, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pose and signals of the faces."""
    with torch.no_grad():
        parts = [graph(torch.from_numpy(faces[start : start + 16])) for start in range(0, len(faces), 16)]
    return torch.cat([part[0] for part in parts]).numpy(), torch.cat([part[1] for part in parts]).numpy()


def _other_side(name: str) -> str:
    return name.replace("Left", "Right") if "Left" in name else name.replace("Right", "Left")


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of a line fitted to points with outliers (Cauchy weights with a scale of 4 degrees)."""
    columns, weights = np.stack([x, np.ones(len(x))], axis=1), np.ones(len(x))
    for _ in range(20):
        root = np.sqrt(weights)
        found = np.linalg.lstsq(columns * root[:, None], y * root, rcond=None)[0]
        weights = 1 / (1 + ((y - columns @ found) / 4.0) ** 2)
    return float(found[0])


def deploy(graph: LandmarkGraph, fitted: dict[str, float], heads: Mapping[str, Any], target: Path) -> str:
    """Write the network and its card into `target`; returns what was written. Raises WeightsError.

    heads: from `read_heads`.
    """
    terms = read_config(HERE / "expression/config.toml")["card"]
    size = (*EXPRESSION_SIZE, 3)
    outputs = (*OUTPUTS, *(name for name in HEADS if name in heads))
    model = export(graph, "face", outputs, noise(2, *size), noise(3, *size))
    # The slopes of the activations are used twice, unchanged and subtracted from 1, so they are not rounded.
    exact = {tensor.name for tensor in model.graph.initializer if list(tensor.dims)[1:] == [1, 1, 1]}
    with staged(target, ONNX_NAME, CARD_NAME) as stage:
        write_onnx(model, stage / ONNX_NAME, keep={*exact, "rows", "columns", "covariance", "shift", "gain"})
        digest = hashlib.sha256((stage / ONNX_NAME).read_bytes()).hexdigest()
        card = {
            "role": "expression",
            "roles": ["expression"],
            "name": terms["name"],
            "version": "1",
            "file": ONNX_NAME,
            "sha256": digest,
            "licence": terms["licence"],
            "training_data": ["its publisher's own pictures (Google; not published)", "constants: portraits A, B"],
            "training_steps": 0,
            "constants": fitted,
            "distilled_from": terms["distilled_from"],
            "converted_from": {"file": "face_landmarker.task", "sha256": TASK_SHA256, "licence": "Apache-2.0"},
            "research_only": terms["research_only"],
            "input": {},
            "crop": {
                "size": list(EXPRESSION_SIZE),
                "eye_distance": EXPRESSION_EYE_DISTANCE,
                "eye_row": EXPRESSION_EYE_ROW,
            },
            "outputs": list(outputs),
            "output": {"signals": list(SIGNALS), "points": list(POINTS)},
            "opset": OPSET,
            "parameters": sum(value.numel() for part in (graph.mesh, graph.shapes) for value in part.buffers())
            + sum(value.numel() for value in graph.parameters()),
            **{name: heads[name]["card"] for name in HEADS if name in heads},
        }
        (stage / CARD_NAME).write_text(json.dumps(card, indent=2) + "\n")
    return f"{target / ONNX_NAME} {digest[:12]}"


class LandmarkGraph(nn.Module):
    """The graph that is exported. It receives crops uint8 (N, 144, 128, 3) RGB, and returns pose (N, 3), signals
    (N, S), points (N, P, 2), and one output (N,) for each head, all defined as in the embedded network.
    """

    def __init__(
        self, task: Path, square: float = SQUARE, below: float = BELOW, heads: Mapping[str, Any] | None = None
    ) -> None:
        """heads: from `read_heads`. Raises DataError if `task` is not the published file."""
        super().__init__()
        with task.open("rb") as file:
            content = file.read(TASK_BYTES + 1)
        if hashlib.sha256(content).hexdigest() != TASK_SHA256:
            raise DataError(f"{task}: not the published face_landmarker.task (sha256 {TASK_SHA256[:12]}…)")
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            self.mesh = LiteNetwork(bundle.read("face_landmarks_detector.tflite"), planes=True)
            self.shapes = LiteNetwork(bundle.read("face_blendshapes.tflite"), planes=False)
            numbers, weights, mean = _mean_face(bundle.read("geometry_pipeline_metadata_landmarks.binarypb"))
        self.scale = square * EXPRESSION_EYE_DISTANCE / SIDE
        centre = ((EXPRESSION_SIZE[1] - 1) / 2, EXPRESSION_EYE_ROW + below * EXPRESSION_EYE_DISTANCE)
        self.corner = [middle + 0.5 - self.scale * SIDE / 2 for middle in centre]
        rows, columns = (_sampling(EXPRESSION_SIZE[axis], self.corner[1 - axis], self.scale) for axis in (0, 1))
        self.register_buffer("rows", torch.from_numpy(rows))
        self.register_buffer("columns", torch.from_numpy(columns.T.copy()))
        mean = mean[numbers] - (weights[:, None] * mean[numbers]).sum(axis=0) / weights.sum()
        covariance = np.zeros((3, 3, 478, 3), np.float32)
        for axis, sign in enumerate((1.0, -1.0, -1.0)):  # The picture's y points down, and the mesh's z away from it.
            covariance[axis, :, numbers, axis] = sign * weights[:, None] * mean
        self.register_buffer("shift", torch.zeros(len(SIGNALS)))
        self.register_buffer("gain", torch.ones(len(SIGNALS)))
        self.register_buffer("covariance", torch.from_numpy(covariance.reshape(9, -1, 1, 1)))
        given = heads or {}
        self.heads = nn.ModuleDict({name: trained(given, name, HEADS[name]()) for name in HEADS if name in given})

    def maps(self, face: Tensor) -> list[Tensor]:
        """The maps that the heads use (`trunk.shown`), of crops uint8 (N, 144, 128, 3) RGB."""
        return shown(self.mesh(self._square(face), TAPS)[-len(TAPS) :])

    def _square(self, face: Tensor) -> Tensor:
        planes = face.permute(0, 3, 1, 2).to(torch.float32) * (1.0 / 255.0)
        return torch.matmul(torch.matmul(self.rows, planes), self.columns)

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        found, *rest = self.mesh(self._square(face), TAPS)
        mesh = found.reshape(-1, 478, 3)
        flat = mesh[:, :, :2] * self.scale + mesh.new_tensor(self.corner) - 0.5
        shapes = self.shapes(mesh[:, list(SHAPE_POINTS), :2])[0]
        signals = (torch.cat([shapes[:, 1:], measured(flat)], 1) - self.shift) * self.gain
        results = [self.pose(found), signals, flat[:, list(POINTS)]]
        maps = shown(rest[-len(TAPS) :])
        if "visible" in self.heads:
            results.append(visible_share(self.heads["visible"](maps)[1]))
        if "real" in self.heads:
            results.append(torch.sigmoid(self.heads["real"](maps)))
        return tuple(results)

    def pose(self, found: Tensor) -> Tensor:
        """Yaw, pitch, roll in degrees (N, 3) from the coordinates of all points (N, 1434, 1, 1)."""
        # With a convolution, ONNX Runtime computes each face separately, so that the batch does not change its result.
        turn = _nearest_rotation(nn.functional.conv2d(found, self.covariance).reshape(-1, 3, 3))
        forward, right = turn[:, :, 2].unbind(1), turn[:, :, 0].unbind(1)
        flat = torch.sqrt(forward[0] ** 2 + forward[2] ** 2)
        # The roll is the direction of the eye line after yaw and pitch have been removed (teacher.angles).
        across = (forward[2] * right[0] - forward[0] * right[2]) / flat
        above = flat * right[1] - forward[1] * (forward[0] * right[0] + forward[2] * right[2]) / flat
        angles = (_angle(forward[0], forward[2]), _angle(forward[1], flat), _angle(-above, across))
        return torch.stack(angles, 1) * (180.0 / np.pi)


def _angle(opposite: Tensor, adjacent: Tensor) -> Tensor:
    """The angle in radians, limited to a right angle in each direction, with an error of at most 2e-5 (Abramowitz and
    Stegun 4.4.49, for half of the angle).

    ONNX Runtime's own arc tangent gives slightly different results for the last faces of a batch.
    """
    half = (opposite / (torch.sqrt(opposite**2 + adjacent**2) + adjacent).clamp_min(1e-6)).clamp(-1.0, 1.0)
    square = half * half
    series = 0.9998660 + square * (-0.3302995 + square * (0.1801410 + square * (-0.0851330 + square * 0.0208351)))
    return 2.0 * half * series


def _nearest_rotation(matrix: Tensor) -> Tensor:
    """The rotation of the polar decomposition of matrices (N, 3, 3), by Newton's iteration (Higham 1986)."""
    one, two = [1, 2, 0], [2, 0, 1]
    matrix = matrix / torch.sqrt(_total(_total(matrix * matrix)) / 3)[:, None, None]
    for _ in range(_ROUNDS):
        first, second = matrix[:, :, one], matrix[:, :, two]
        cofactors = first[:, one] * second[:, two] - first[:, two] * second[:, one]
        matrix = (matrix + cofactors / _total(matrix[:, 0] * cofactors[:, 0])[:, None, None]) / 2
    return matrix


def _total(values: Tensor) -> Tensor:
    """Sum over axis 1, which has size 3, in an order that does not depend on the batch."""
    return values[:, 0] + values[:, 1] + values[:, 2]


def measured(mesh: Tensor) -> Tensor:
    """The lengths that `models.expression.dataset.measured` defines, (N, 8), for meshes (N, 478, 2)."""

    def gap(pairs: tuple[tuple[int, int], ...]) -> Tensor:
        return _total(mesh[:, [low for _, low in pairs], 1] - mesh[:, [high for high, _ in pairs], 1]) / 3

    def iris(centre: int, corners: tuple[int, int]) -> tuple[Tensor, Tensor]:
        found = mesh[:, centre] - (mesh[:, corners[0]] + mesh[:, corners[1]]) / 2
        return found[:, 0], -found[:, 1]

    left, right = iris(473, LEFT_CORNERS), iris(468, RIGHT_CORNERS)
    mouth = mesh[:, MOUTH[1]] - mesh[:, MOUTH[0]]
    width = torch.sqrt(mouth[:, 0] ** 2 + mouth[:, 1] ** 2)
    lengths = (gap(LEFT_LIDS), gap(RIGHT_LIDS), gap(INNER_LIPS), width, left[0], right[0], left[1], right[1])
    return torch.stack(lengths, 1) / EXPRESSION_EYE_DISTANCE


def _sampling(size: int, corner: float, scale: float) -> np.ndarray:
    """Matrix float32 [SIDE, size] for bilinear sampling of a row of pixels at corner + scale * x; beyond the ends of
    the row, the last pixel is repeated.
    """
    at = np.clip(corner + scale * (np.arange(SIDE) + 0.5) - 0.5, 0, size - 1)
    low = np.minimum(at.astype(int), size - 2)
    matrix = np.zeros((SIDE, size), np.float32)
    matrix[np.arange(SIDE), low] = 1 - (at - low)
    matrix[np.arange(SIDE), low + 1] = at - low
    return matrix


def _mean_face(content: bytes) -> tuple[list[int], np.ndarray, np.ndarray]:
    """From MediaPipe's metadata: numbers of the points to which the pose is fitted, their weights [K], and the mean
    face [468, 3].
    """
    fields = list(_fields(content))
    mesh = [value for number, value in _fields(next(value for number, value in fields if number == 1)) if number == 3]
    pairs = [dict(_fields(value)) for number, value in fields if number == 2]
    vertices = np.array([struct.unpack("<f", value)[0] for value in mesh]).reshape(-1, 5)[:, :3]
    return [pair[1] for pair in pairs], np.array([struct.unpack("<f", pair[2])[0] for pair in pairs]), vertices


def _fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a Protocol Buffers message; integers are decoded, other values are bytes."""
    position = 0

    def integer() -> int:
        nonlocal position
        value, shift = 0, 0
        while True:
            byte = content[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(content):
        key = integer()
        if key & 7 == 0:
            yield key >> 3, integer()
            continue
        length = {2: integer, 5: lambda: 4, 1: lambda: 8}[key & 7]()
        yield key >> 3, content[position : position + length]
        position += length


if __name__ == "__main__":
    sys.exit(main())
