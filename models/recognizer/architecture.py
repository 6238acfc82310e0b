"""The project's own face network in torch: one backbone for identity and other properties of an aligned crop.

The input of the graph is `face`, uint8 (N, 112, 112, 3) RGB, ArcFace-aligned. Its outputs are:

    embedding  (N, D)    not normalised
    spread     (N,)      SER-FIQ's d in the closed form of docs/design.md 4.1, in float32
    features   (N, 512)  x of docs/design.md 4.1: the input of inverted dropout before the last affine layer
    pose       (N, 3)    yaw, pitch, roll in degrees, with the signs of docs/design.md 5; roll in the aligned picture
    visible    (N,)      share of the face that is not covered, 0..1
    eyes       (N,)      probability that both eyes are open, 0..1; only if an eyes head was trained

Backbone: MobileFaceNet (Chen et al. 2018, arXiv 1804.07573) in one of two shapes (`SHAPES`), which differ in their
planes, in the sizes of their maps and in the length of the embedding (D = 128 or 256). The heads for pose and visible
share use two maps of the backbone and take less than 1 % of the operations. The head for the eyes uses the pixels,
because the maps are too coarse to show an eyelid.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.recognizer.squeezed import SIDE as SQUEEZED_SIDE
from models.recognizer.squeezed import Enlarge, SqueezedFaceNet
from streamgate.convert.export import export, noise, write_onnx
from streamgate.convert.mobilefacenet import MobileFaceNet, closed_form

INPUT_SIDE = 112
OUTPUTS = ("embedding", "spread", "features", "pose", "visible")
EYES_OUTPUT = "eyes"
MEAN = tuple(255.0 * value for value in (0.485, 0.456, 0.406))
DEVIATION = tuple(255.0 * value for value in (0.229, 0.224, 0.225))
"""The backbone's input is (RGB - MEAN) / DEVIATION, with ImageNet's mean and deviation scaled to 0..255."""

MIDDLE_BLOCK = 11
"""The heads use two maps: the last map of 14 x 14, which is the output of this inverted residual block, and a map of
7 x 7."""

EYE_ROWS, LEFT_EYE, RIGHT_EYE = (40, 64), (22, 54), (58, 90)
"""The patches around the eyes of the ArcFace template: rows of both, columns of each. They are mirror images."""

_POSE_UNIT = 45.0
"""Degrees per unit of the pose layer's output, so that its weights are as large as those of other layers."""
_SMALLEST_STORED_HALF = 64


class Taps(NamedTuple):
    """Maps of one run of the backbone."""

    middle: Tensor
    """(N, 128, 14, 14); 16 x 16 if the planes have 128 px"""
    last: Tensor
    """(N, 128, 7, 7); 8 x 8 if the planes have 128 px"""
    features: Tensor
    """(N, 512)"""

    @classmethod
    def of(cls, maps: list[Tensor]) -> Taps:
        """The taps among the outputs of all units (`FaceNetwork.units`)."""
        return cls(maps[1 + MIDDLE_BLOCK], maps[-3], maps[-1])


class FaceHeads(nn.Module):
    """Pose and visible share from two maps of the backbone; 1.7 million multiply-accumulates."""

    def __init__(self, channels: int = 48, side: int = 7) -> None:
        """side: side of the last map."""
        super().__init__()
        self.middle = nn.Sequential(nn.Conv2d(128, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(128, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(2 * channels, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.hidden = nn.Sequential(nn.Linear(32 * side * side, 64), nn.ReLU())
        self.pose = nn.Linear(64, 3)
        self.visible = nn.Linear(64, 1)

    def forward(self, taps: Taps) -> tuple[Tensor, Tensor]:
        """Pose (N, 3) in degrees; logit of the visible share (N,)."""
        middle = nn.functional.avg_pool2d(self.middle(taps.middle), 2)
        mixed = self.mix(torch.cat([middle, self.last(taps.last)], dim=1))
        # As a convolution over the whole map, the linear layer takes half the time in ONNX Runtime.
        linear = self.hidden[0]
        assert isinstance(linear, nn.Linear)
        kernel = linear.weight.reshape(-1, *mixed.shape[1:])
        hidden = torch.relu(nn.functional.conv2d(mixed, kernel, linear.bias)).flatten(1)
        pose = nn.functional.linear(hidden, self.pose.weight * _POSE_UNIT, self.pose.bias * _POSE_UNIT)
        return pose, self.visible(hidden).squeeze(1)


class EyesHead(nn.Module):
    """Are both eyes open? Computed from the luma of two fixed patches; 1.4 million multiply-accumulates.

    Each patch is normalised to mean 0 and contrast 1, so that neither light nor skin matters. The right patch is
    mirrored, so that both eyes use the same weights. The result is that of the less open eye.
    """

    luma: Tensor
    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("luma", torch.tensor([[0.299], [0.587], [0.114]]), persistent=False)
        pixels = torch.arange(INPUT_SIDE * INPUT_SIDE).reshape(INPUT_SIDE, INPUT_SIDE)[slice(*EYE_ROWS)]
        both = torch.cat([pixels[:, slice(*LEFT_EYE)].flatten(), pixels[:, slice(*RIGHT_EYE)].flip(1).flatten()])
        self.register_buffer("places", both, persistent=False)

        def unit(inputs: int, outputs: int, side: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
            return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

        self.look = nn.Sequential(
            *unit(1, 16, 5, 2),
            *unit(16, 16, 3, 1),
            nn.MaxPool2d(2),
            *unit(16, 32, 3, 1),
            nn.MaxPool2d(2),
            nn.Flatten(1),
        )
        self.judge = nn.Sequential(nn.Linear(32 * 12, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 1))

    def each(self, faces: Tensor) -> Tensor:
        """Logits (2, N) that the viewer's left and right eye are open, for faces uint8 (N, 112, 112, 3) RGB."""
        # One look-up for both patches and one product for their luma: with few nodes, the overhead per node is small.
        patches = torch.matmul(faces.flatten(1, 2).index_select(1, self.places).float(), self.luma)
        height, width = EYE_ROWS[1] - EYE_ROWS[0], LEFT_EYE[1] - LEFT_EYE[0]
        patches = patches.reshape(-1, height * width)
        # A variance of 16 (4 levels squared) is added, so that the noise of a flat patch is not amplified.
        patches = nn.functional.layer_norm(patches, (height * width,), eps=16.0).reshape(-1, 1, height, width)
        return self.judge(self.look(patches)).reshape(-1, 2).t()

    def forward(self, faces: Tensor) -> Tensor:
        """Probability (N,) that both eyes are open."""
        return torch.sigmoid(self.each(faces).amin(dim=0))


class Planes(nn.Module):
    """Maps faces uint8 (N, 112, 112, 3) RGB to the planes (N, 3, 112, 112) of MobileFaceNet."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", 1.0 / torch.tensor(DEVIATION).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, faces: Tensor) -> Tensor:
        pixels = faces.permute(0, 3, 1, 2).to(torch.float32)
        return (pixels - self.mean) * self.scale


class Shape(NamedTuple):
    """One shape of the network: the module that makes the planes, the backbone, and the side of its last map."""

    planes: type[nn.Module]
    backbone: type[MobileFaceNet]
    last_side: int


SHAPES = {
    "mobilefacenet": Shape(Planes, MobileFaceNet, INPUT_SIDE // 16),
    "squeezed": Shape(Enlarge, SqueezedFaceNet, SQUEEZED_SIDE // 16),
}
"""The shapes by their name in a recipe's config: one of the standard recognizer, and one of `squeezed.py`."""


class FaceNetwork(nn.Module):
    """Backbone and heads in the form used for training; `drop` is SER-FIQ's dropout before the last affine layer."""

    def __init__(self, drop_rate: float, shape: str = "mobilefacenet") -> None:
        super().__init__()
        if not 0.0 <= drop_rate < 1.0:
            raise ValueError(f"drop rate {drop_rate} is not in [0, 1)")
        self.shape = shape
        planes, backbone, side = SHAPES[shape]
        self.planes = planes()
        self.backbone = backbone()
        self.heads = FaceHeads(side=side)
        self.drop_rate = drop_rate
        self.drop = nn.Dropout(drop_rate)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise with small residual branches and features; otherwise, the first steps would only shrink them."""
        for block in self.backbone.features:
            last = block.get_submodule("conv")[-1]
            assert isinstance(last, nn.BatchNorm2d)
            nn.init.constant_(last.weight, 0.3)
        nn.init.constant_(self.backbone.gdconv.bn.weight, 0.1)

    def units(self) -> list[nn.Module]:
        """The backbone up to its features, as a chain of modules: the output of each is the input of the next."""
        b = self.backbone
        return [nn.Sequential(b.conv1, b.dw_conv), *b.features, b.conv2, nn.Sequential(b.gdconv, nn.Flatten(1))]

    def embed(self, features: Tensor) -> Tensor:
        """Embedding (N, D) of features (N, 512), with dropout while training."""
        b = self.backbone
        return b.bn(b.conv3(self.drop(features)[:, :, None, None])).flatten(1)

    def taps(self, planes: Tensor) -> Taps:
        """The taps for the planes that `self.planes` makes."""
        units = self.units()
        maps = [planes]
        for unit in units:
            maps.append(unit(maps[-1]))
        return Taps.of(maps[1:])


class FaceGraph(nn.Module):
    """The module that is exported: from bytes to all outputs listed at the top of this file."""

    weight: Tensor
    bias: Tensor

    def __init__(self, network: FaceNetwork, eyes: EyesHead | None = None) -> None:
        super().__init__()
        self.network = network.eval()
        self.eyes = None if eyes is None else eyes.eval()
        weight, bias = network.backbone.last_affine()
        self.odds = network.drop_rate / (1.0 - network.drop_rate)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of `forward`."""
        return OUTPUTS if self.eyes is None else (*OUTPUTS, EYES_OUTPUT)

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        taps = self.network.taps(self.network.planes(face))
        pose, logit = self.network.heads(taps)
        embedding, spread = closed_form(self.weight, self.bias, taps.features, self.odds)
        found = (embedding, spread, taps.features, pose, torch.sigmoid(logit))
        return found if self.eyes is None else (*found, self.eyes(face))


def normalise(faces: Tensor) -> Tensor:
    """The planes of MobileFaceNet, for networks of that shape: from uint8 (N, 112, 112, 3) RGB to float32."""
    return Planes()(faces)


def export_onnx(network: FaceNetwork, path: Path, eyes: EyesHead | None = None) -> None:
    """Write one ONNX file with a variable batch size and large weights as float16; compares its output with torch's."""
    graph = FaceGraph(network, eyes)
    side = (INPUT_SIDE, INPUT_SIDE, 3)
    model = export(graph, "face", graph.outputs, noise(2, *side), noise(3, *side))
    # The last affine layer stays float32 (docs/design.md 4.1's head).
    head = {name for node in model.graph.node if node.op_type in ("MatMul", "Add", "Mul", "Sub") for name in node.input}
    write_onnx(model, path, keep=head, smallest=_SMALLEST_STORED_HALF)
