"""The project's own network for expression, gaze and head pose in torch.

Input: `face`, uint8 (N, 144, 128, 3) RGB, aligned by the eye line (`networks.alignment.expression_matrix`). Outputs:

    pose      (N, 3)     yaw, pitch, roll in degrees, signs as in docs/design.md 5; the roll is that in the crop
    signals   (N, S)     the signals in SIGNALS, in this order
    points    (N, P, 2)  x, y of the mesh points POINTS in pixels of the crop
    visible   (N,)       visible share of the face, forehead to chin, 0..1; eyes and mouth have three times the weight
    real      (N,)       0..1, below 0.5 for a face that is drawn, rendered or sculpted rather than photographed

A trunk of plain 3x3 convolutions receives the whole crop. Lids and irises are smaller than a pixel of its maps, so a
second small network receives a patch of each eye; the right patch is mirrored, so that both eyes share the weights. The
head for occlusion uses the trunk's maps at four depths, the first of them because it shows hard edges; it is trained
separately (visible.py), with the rest of the network frozen. A small head tells photographs from drawings (real.py);
it uses statistics of the maps of the trunk and of the eyes, and of the maps of a second trunk, which was trained on
ImageNet (lite.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.common.layers import unit
from models.common.optional_output import make_optional
from models.common.statistics_head import StatisticsHead, over_map
from models.expression.lite import LITE_FIGURES, LiteTrunk
from streamgate.convert.export import export, noise, write_onnx
from streamgate.networks.alignment import EXPRESSION_EYE_DISTANCE, EXPRESSION_EYE_ROW, EXPRESSION_SIZE
from streamgate.networks.graphs import always_compute

OUTPUTS = ("pose", "signals", "points", "visible", "real")


def words(text: str) -> tuple[str, ...]:
    """A list of names as a tuple."""
    return tuple(text.split())


_LIDS = (
    "33 7 163 144 145 153 154 155 133 173 157 158 159 160 161 246",
    "263 249 390 373 374 380 381 382 362 398 384 385 386 387 388 466",
)
_IRISES = ("468 470 472", "473 475 477")
_BROWS = ("70 63 105 66 107", "300 293 334 296 336")
_LIPS = (
    "61 146 91 181 84 185 40 39 37 78 95 88 178 87 191 80 81 82",
    "291 375 321 405 314 409 270 269 267 308 324 318 402 317 415 310 311 312",
)
_SIDES = ("98 148 172 234", "327 377 397 454")
_MIDDLE = "0 13 14 17 1 4 6 168 152 10"
_LEFT = [int(n) for part in (_LIDS, _IRISES, _BROWS, _LIPS, _SIDES) for n in part[0].split()]
_RIGHT = [int(n) for part in (_LIDS, _IRISES, _BROWS, _LIPS, _SIDES) for n in part[1].split()]
POINTS = (*_LEFT, *_RIGHT, *(int(n) for n in _MIDDLE.split()))
"""Numbers of the teacher's mesh points: the viewer's left half, the right half in the same order, the middle line."""
MIRRORED_POINTS = (
    *range(len(_LEFT), 2 * len(_LEFT)),
    *range(len(_LEFT)),
    *range(2 * len(_LEFT), len(POINTS)),
)
"""For each point, the position in POINTS of the point that takes its place when the picture is mirrored."""

BLENDSHAPES = words(
    "browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft "
    "cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight "
    "eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft "
    "eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight "
    "mouthFrownLeft mouthFrownRight mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight "
    "mouthPressLeft mouthPressRight mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower "
    "mouthShrugUpper mouthSmileLeft mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft "
    "mouthUpperUpRight noseSneerLeft noseSneerRight"
)
"""The teacher's blendshapes without the first; Left and Right are the person's own sides."""
MEASURED = words("lidsLeft lidsRight lipGap mouthWidth irisAcrossLeft irisAcrossRight irisAboveLeft irisAboveRight")
"""Lengths, divided by the distance between the eyes (Left and Right are the person's own): opening of the lids, gap
between the inner lips, width of the mouth, and the offset of the iris from the midpoint of the eye's corners, across
(towards larger x) and above."""
SIGNALS = (*BLENDSHAPES, *MEASURED)

LOOK_ACROSS = {"eyeLookOutLeft": 0.5, "eyeLookInLeft": -0.5, "eyeLookInRight": 0.5, "eyeLookOutRight": -0.5}
LOOK_ABOVE = {"eyeLookUpLeft": 0.5, "eyeLookUpRight": 0.5, "eyeLookDownLeft": -0.5, "eyeLookDownRight": -0.5}
"""The rotation of the eyes in the head, towards larger x and upwards, as sums of signals. While a person looks into the
camera, yaw + EYES_TURN x LOOK_ACROSS is near 0 and pitch + EYES_TURN x LOOK_ABOVE near LEVEL
(streamgate/measures/gaze.py)."""

_ROW = round(EXPRESSION_EYE_ROW + 0.5)
EYE_ROWS = (_ROW - 16, _ROW + 16)
_MIDDLE_COLUMN = EXPRESSION_SIZE[1] // 2
LEFT_EYE = (_MIDDLE_COLUMN - EXPRESSION_EYE_DISTANCE // 2 - 22, _MIDDLE_COLUMN - EXPRESSION_EYE_DISTANCE // 2 + 22)
RIGHT_EYE = (EXPRESSION_SIZE[1] - LEFT_EYE[1], EXPRESSION_SIZE[1] - LEFT_EYE[0])
"""Rows of both eye patches and columns of each; mirror images."""

POSE_UNIT = 30.0
"""Unit of the pose layer's output in degrees; the unit of its points is the distance between the eyes."""
_SMALLEST_STORED_HALF = 64
_TRUNK = (24, 48, 64, 64, 64, 128, 128, 48)
"""Channels of the trunk's units."""
_HIDDEN = 192 + 2 * 64
_FIRST = 2
"""Index of the first unit of the trunk whose maps the head `real` uses. Statistics of the larger maps before it are
expensive and did not help."""
FIGURES = 4 * sum(_TRUNK[_FIRST:]) + _HIDDEN + 2 * 4 * 64 + LITE_FIGURES
"""Number of statistics of a face that the head `real` receives."""


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = unit(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))
        normalisation = self.second[1]
        assert isinstance(normalisation, nn.BatchNorm2d)
        nn.init.constant_(normalisation.weight, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class VisibleHead(nn.Module):
    """Occlusion from the trunk's maps: logits of the covered share of each cell, and of the extent.

    The extent is the square root of the covered share, because a finger on the chin covers only 3 % of a face, but must
    be detected.
    """

    steps: Tensor
    """Training steps of this head, counted separately from those of the trunk."""

    TAPS = (0, 1, 4, 6)
    """The units of the trunk whose maps are used: 24 x 72 x 64, 48 x 36 x 32, 64 x 18 x 16, 128 x 9 x 8."""

    def __init__(self) -> None:
        super().__init__()
        # Maps with multiples of 16 channels can be concatenated without changing the memory layout; a change would
        # cost more time than fewer channels save.
        self.edges = unit(24, 16, 2)
        self.parts = unit(16 + 48, 48, 2)
        self.wholes = unit(48 + 64, 64, 2)
        self.known = unit(128, 32, 1, 1)
        self.both = unit(64 + 32, 64)
        self.cells = nn.Conv2d(64, 1, 1)
        self.squeeze = unit(64, 16, 1, 1)
        self.hidden = nn.Linear(16 * 9 * 8, 48)
        self.extent = nn.Linear(48, 1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, taps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (N, 9, 8) and (N,)."""
        edges = self.edges(taps[0])
        parts = self.parts(torch.cat([edges, taps[1]], dim=1))
        wholes = self.wholes(torch.cat([parts, taps[2]], dim=1))
        maps = self.both(torch.cat([wholes, self.known(taps[3])], dim=1))
        hidden = torch.relu(over_map(self.hidden, self.squeeze(maps)))
        return self.cells(maps).flatten(2).reshape(-1, 9, 8), over_map(self.extent, hidden).flatten(1).squeeze(1)


class RealHead(StatisticsHead):
    """Is the face photographed? One logit, from statistics of the maps of the trunk (except the largest maps) and of
    the eyes, from the hidden features, and from statistics of the maps of EfficientNet-Lite0, whose ImageNet weights
    are not trained further.

    Smooth areas, outlines and few colours distinguish drawings, wherever they are in the face; therefore statistics are
    sufficient. The hidden features describe the shape of face and eyes. For training, the statistics are computed once
    for each picture (real.py).
    """

    def __init__(self) -> None:
        super().__init__(FIGURES)
        self.lite = LiteTrunk()

    def forward(self, planes: Tensor, maps: list[Tensor], eyes: Tensor, features: Tensor) -> Tensor:
        """0..1 (N,), below 0.5 for a drawing, from the normalised planes (N, 3, 144, 128), the maps of the trunk and of
        the eyes, and the features from which pose and signals are computed.
        """
        return torch.sigmoid(self.logits(self.figures(planes, maps, eyes, features)))

    def figures(self, planes: Tensor, maps: list[Tensor], eyes: Tensor, features: Tensor) -> Tensor:
        """Statistics (N, FIGURES, 1, 1): four of each map of the trunk except the largest maps, the features, four of
        each map of each eye, and those of `LiteTrunk`.
        """
        count = features.shape[0]
        of_eyes = _four(eyes)
        own = [*(_four(each) for each in maps[_FIRST:]), features, of_eyes[:count], of_eyes[count:]]
        return torch.cat([*own, self.lite(planes)], dim=1)


def _four(maps: Tensor) -> Tensor:
    """Mean, standard deviation, maximum and extent of each map (N, C, H, W), as (N, 4 C, 1, 1)."""
    pool = nn.functional.adaptive_avg_pool2d
    mean = pool(maps, 1)
    variance = (pool(maps * maps, 1) - mean * mean).clamp_min(0.0)
    extent = pool((maps * 4.0).clamp(0.0, 1.0), 1)
    return torch.cat([mean, variance.sqrt(), nn.functional.adaptive_max_pool2d(maps, 1), extent], dim=1)


def visible_share(extent: Tensor) -> Tensor:
    """Visible share 0..1, from the head's logit of the extent."""
    return 1.0 - torch.sigmoid(extent) ** 2


class ExpressionNetwork(nn.Module):
    """The network in torch. It receives normalised planes (N, 3, 144, 128); `forward` returns pose, signals and points
    in the units of training.
    """

    mean_points: Tensor
    signal_mean: Tensor
    signal_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            unit(3, 24, 2),
            unit(24, 48, 2),
            unit(48, 64, 2),
            Residual(64),
            Residual(64),
            unit(64, 128, 2),
            Residual(128),
            unit(128, 48, 1, 1),
        )
        self.eye = nn.Sequential(unit(3, 16, 2), unit(16, 32, 2), unit(32, 48), unit(48, 64, 2))
        self.face_hidden = nn.Sequential(nn.Linear(48 * 9 * 8, 192), nn.ReLU(inplace=True))
        self.eye_hidden = nn.Sequential(nn.Linear(64 * 4 * 6, 64), nn.ReLU(inplace=True))
        width = _HIDDEN
        self.pose = nn.Linear(width, 3)
        self.signals = nn.Sequential(nn.Linear(width, 128), nn.ReLU(inplace=True), nn.Linear(128, len(SIGNALS)))
        self.points = nn.Linear(width, 2 * len(POINTS))
        self.visible = VisibleHead()
        self.real = RealHead()
        self.register_buffer("mean_points", torch.zeros(2 * len(POINTS)))
        self.register_buffer("signal_mean", torch.zeros(len(SIGNALS)))
        self.register_buffer("signal_scale", torch.ones(len(SIGNALS)))

    def maps(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """The trunk's map (N, 48, 9, 8), and `eye_maps`."""
        return self.trunk(planes), self.eye_maps(planes)

    def eye_maps(self, planes: Tensor) -> Tensor:
        """The eye patches' maps (2 N, 64, 4, 6): all left ones, then all right ones."""
        rows = planes[:, :, EYE_ROWS[0] : EYE_ROWS[1]]
        left, right = rows[..., LEFT_EYE[0] : LEFT_EYE[1]], rows[..., RIGHT_EYE[0] : RIGHT_EYE[1]].flip(3)
        eyes = torch.cat([left, right])
        # Each patch gets mean 0 and contrast 1, so that light and skin tone do not matter; eps keeps the noise of a
        # flat patch from being amplified.
        eyes = nn.functional.layer_norm(eyes, (3, EYE_ROWS[1] - EYE_ROWS[0], LEFT_EYE[1] - LEFT_EYE[0]), eps=0.01)
        maps: Tensor = self.eye(eyes)
        return maps

    def taps(self, planes: Tensor) -> list[Tensor]:
        """The maps of the trunk that the head `visible` uses."""
        maps = self.trunk_maps(planes, VisibleHead.TAPS[-1] + 1)
        return [maps[number] for number in VisibleHead.TAPS]

    def trunk_maps(self, planes: Tensor, count: int = len(_TRUNK)) -> list[Tensor]:
        """The maps of the trunk's first `count` units."""
        maps = []
        for stage in self.trunk[:count]:
            planes = stage(planes)
            maps.append(planes)
        return maps

    def answers(self, face: Tensor, eyes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The result of `forward`, from `maps`."""
        return self.read(self.features(face, eyes))

    def features(self, face: Tensor, eyes: Tensor) -> Tensor:
        """Hidden features (N, 320, 1, 1) of the face and its two eyes, from `maps`."""
        # The linear layers are convolutions over the whole map. ONNX Runtime then computes each face separately, so
        # that the result for a face does not depend on the batch, and needs half the time.
        hidden = torch.relu(over_map(self.eye_hidden[0], eyes))
        count = face.shape[0]
        return torch.cat([torch.relu(over_map(self.face_hidden[0], face)), hidden[:count], hidden[count:]], dim=1)

    def read(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The result of `forward`, from `features`."""
        signals = torch.relu(over_map(self.signals[0], features))
        raw = (over_map(self.pose, features), over_map(self.signals[2], signals), over_map(self.points, features))
        pose, signals, points = (out.flatten(1) for out in raw)
        return pose, signals, points

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pose in POSE_UNIT; signals minus their mean, in standard deviations; points minus their mean, in distances
        between the eyes.
        """
        return self.answers(*self.maps(planes))


class ExpressionGraph(nn.Module):
    """The graph that is exported: it receives bytes, and returns OUTPUTS in their units."""

    def __init__(self, network: ExpressionNetwork) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        planes = normalise(face)
        maps = self.network.trunk_maps(planes)
        _, extent = self.network.visible([maps[number] for number in VisibleHead.TAPS])
        eyes = self.network.eye_maps(planes)
        features = self.network.features(maps[-1], eyes)
        real = self.network.real(planes, maps, eyes, features)
        return *in_units(self.network, self.network.read(features)), visible_share(extent), real


def in_units(network: ExpressionNetwork, raw: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Pose in degrees, signals, and points in pixels of the crop, from the outputs of `ExpressionNetwork.forward`."""
    pose, signals, points = raw
    signals = signals * network.signal_scale + network.signal_mean
    points = (points + network.mean_points) * float(EXPRESSION_EYE_DISTANCE)
    origin = points.new_tensor([(EXPRESSION_SIZE[1] - 1) / 2, EXPRESSION_EYE_ROW])
    return pose * POSE_UNIT, signals, points.reshape(-1, len(POINTS), 2) + origin


def normalise(faces: Tensor) -> Tensor:
    """uint8 (N, 144, 128, 3) RGB to planes, float32 (N, 3, 144, 128) of about -1..1."""
    return (faces.permute(0, 3, 1, 2).to(torch.float32) - 127.5) * (1.0 / 64.0)


def export_onnx(network: ExpressionNetwork, path: Path, kept: Path | None = None) -> None:
    """Write one ONNX file for any batch size; large weights are stored as float16. Its output is compared with torch's.

    The output `real` is optional (`models.common.optional_output`).

    kept: an ONNX file of the same network. Only the head `real` is then exported from `network`, and all other outputs
    stay bit-identical to those of this file. Without it, they would change slightly, because the committed
    half-precision weights are rounded differently from the folded weights in the file.
    """
    import onnx

    size = (*EXPRESSION_SIZE, 3)
    model = export(ExpressionGraph(network), "face", OUTPUTS, noise(2, *size), noise(3, *size))
    if kept is not None:
        before = onnx.load(kept)
        always_compute(before)
        model = graft(before, model, "real")
    # Units and means stay float32, because their values are output directly.
    exact = {name for node in model.graph.node if node.op_type in ("Add", "Mul", "Sub") for name in node.input}
    write_onnx(model, path, keep=exact, smallest=_SMALLEST_STORED_HALF)
    # Most faces do not need this output, which takes up more than half the time of a run.
    model = onnx.load(path)
    make_optional(model, "real")
    onnx.checker.check_model(model)
    onnx.save(model, path)


def graft(kept: Any, made: Any, head: str) -> Any:
    """The graph `kept`, with the head of this name replaced by that of `made`, a graph with the same trunk.

    Both are ModelProto; `kept` is changed in place.
    """

    def own(node: Any) -> bool:
        return any(name == head or name.startswith(f"/{head}/") for name in node.output)

    mark = f"{head}."
    for part, chosen in (
        (kept.graph.node, lambda node: own(node) or any(name.startswith(mark) for name in node.output)),
        (kept.graph.initializer, lambda tensor: tensor.name.startswith(mark)),
        (kept.graph.output, lambda output: output.name == head),
    ):
        for old in [item for item in part if chosen(item)]:
            part.remove(old)
    nodes = [node for node in made.graph.node if own(node)]
    needed = {name for node in nodes for name in node.input}
    for tensor in made.graph.initializer:
        if tensor.name in needed:
            # The exporter numbers its tensors, so without a prefix, names of the two graphs could be the same.
            for node in nodes:
                node.input[:] = [mark + name if name == tensor.name else name for name in node.input]
            tensor.name = mark + tensor.name
            kept.graph.initializer.append(tensor)
    kept.graph.node.extend(nodes)
    kept.graph.output.extend(output for output in made.graph.output if output.name == head)
    return kept
