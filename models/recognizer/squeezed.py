"""MobileFaceNet with squeeze-and-excitation, 128 px: the shape of Open Model Zoo's face-reidentification-retail-0095.

Its published weights (Apache-2.0) are constants of an OpenVINO IR: `.xml` gives shapes and offsets, `.bin` the numbers.
There the norms are folded into the convolutions; here every convolution keeps a batch norm, so that the same module
also trains from random weights.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.common.images import DataError
from models.common.openvino_graph import constant
from streamgate.convert.mobilefacenet import MobileFaceNet
from streamgate.networks.alignment import ARCFACE_TEMPLATE
from streamgate.weights.files import sha256_of

NAME = "face-reidentification-retail-0095"
SHA256 = "241229ca3d206321868d46ce74a3c0b06c49cea58db7dc70b2e842ff287545d1"
"""The sha256 of the published `.bin` (FP16)."""
SIDE = 128
EMBEDDING = 256

SCALE = (0.01865, 0.02136, 0.01437)
SHIFT = (-1.53, -1.445, -0.9263)
"""The planes are RGB * SCALE + SHIFT, for RGB in 0..255; the IR has the same values, for BGR."""

POINTS = ((0.3155687, 0.4615741), (0.6826229, 0.4615741), (0.5002625, 0.6405054), (0.3494719, 0.8246920),
          (0.6534365, 0.8246920))  # fmt: skip
"""Positions at which the network expects the five landmarks, as shares of its side (Open Model Zoo's face recognition
demo)."""

_STAGES = ((64, 128, 5, 2), (128, 256, 1, 2), (128, 256, 6, 1), (128, 512, 1, 2), (128, 256, 2, 1))
"""Output channels, hidden channels, repetitions and first stride of the inverted residual stages."""


class _Slope(nn.PReLU):
    """PReLU with one slope, for input of any precision."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            # The same function, but ONNX Runtime computes it inside the convolution before it.
            return F.leaky_relu(x, float(self.weight))
        return F.prelu(x, self.weight.to(x.dtype))


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), _Slope())


class _Squeeze(nn.Module):
    """Weights each channel by a function of the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 8, 1)
        self.slope = _Slope()
        self.up = nn.Conv2d(channels // 8, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.up(self.slope(self.down(mean))))


class _Block(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation, squeeze; with a shortcut if the shapes allow it."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _unit(inputs, hidden, 1),
            _unit(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.squeeze = _Squeeze(outputs)

    def forward(self, x: Tensor) -> Tensor:
        added = self.squeeze(self.conv(x))
        return x + added if self.shortcut else added


class SqueezedFaceNet(MobileFaceNet):
    """Maps planes (N, 3, 128, 128) to the 512 features before the last affine layer."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.conv1 = _unit(3, 64, 3, 2)
        self.dw_conv = _unit(64, 64, 3, groups=64)
        blocks: list[nn.Module] = []
        channels = 64
        for outputs, hidden, count, first_stride in _STAGES:
            for index in range(count):
                blocks.append(_Block(channels, hidden, outputs, first_stride if index == 0 else 1))
                channels = outputs
        self.features = nn.Sequential(*blocks)
        self.conv2 = _unit(channels, 512, 1)
        self.gdconv = nn.Sequential(OrderedDict([
            ("depthwise", nn.Conv2d(512, 512, 8, groups=512, bias=False)),
            ("bn", nn.BatchNorm2d(512)),
        ]))  # fmt: skip
        self.conv3 = nn.Conv2d(512, EMBEDDING, 1)
        self.bn = nn.BatchNorm2d(EMBEDDING)


class Enlarge(nn.Module):
    """Maps faces uint8 (N, 112, 112, 3) RGB, ArcFace-aligned, to planes (N, 3, 128, 128).

    The network was trained on closer crops, so the inner 96 px are enlarged. Both alignments are upright. Therefore, a
    scale and a shift are enough, and bilinear sampling is a product with one matrix for rows and one for columns.
    """

    rows: Tensor
    columns: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, side: int = 112) -> None:
        super().__init__()
        source, target = np.asarray(ARCFACE_TEMPLATE, np.float64), SIDE * np.asarray(POINTS)
        middle, wanted = source.mean(axis=0), target.mean(axis=0)
        gain = float(((source - middle) * (target - wanted)).sum() / np.square(source - middle).sum())
        first = middle - wanted / gain
        self.register_buffer("rows", _sampling(first[1], 1 / gain, side), persistent=False)
        self.register_buffer("columns", _sampling(first[0], 1 / gain, side).t().contiguous(), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(SHIFT).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, faces: Tensor) -> Tensor:
        planes = faces.permute(0, 3, 1, 2).to(torch.float32)
        return torch.matmul(torch.matmul(self.rows, planes), self.columns) * self.scale + self.shift


def _sampling(first: float, step: float, side: int) -> Tensor:
    """float32 [SIDE, side]: row i reads a line of `side` pixels at first + i * step, linearly between two of them."""
    places = np.clip(first + step * np.arange(SIDE), 0, side - 1)
    low = np.minimum(places.astype(int), side - 2)
    weights = np.zeros((SIDE, side), np.float32)
    weights[np.arange(SIDE), low] = 1 - (places - low)
    weights[np.arange(SIDE), low + 1] = places - low
    return torch.from_numpy(weights)


def load_published(path: Path) -> SqueezedFaceNet:
    """The published weights in eval mode, from the `.bin` of an IR with its `.xml` next to it.

    Raises:
        DataError: a file is missing or is not the published file.
    """
    described = path.with_suffix(".xml")
    for file in (path, described):
        if not file.is_file():
            raise DataError(f"{file}: the teacher is missing; models/open/PROVENANCE.md gives its source")
    if sha256_of(path) != SHA256:
        raise DataError(f"{path}: is not {NAME} as Open Model Zoo publishes it (FP16)")
    network = SqueezedFaceNet().eval().requires_grad_(False)
    arrays = _constants(described, path.read_bytes())
    try:
        next(arrays), next(arrays)  # the planes' scale and shift
        first = next(arrays)
        _put(network.conv1, first.flip(1), arrays)  # BGR to RGB
        _put(network.dw_conv, next(arrays), arrays)
        for block in network.features:
            assert isinstance(block, _Block)
            for part in (block.conv[0], block.conv[1]):
                _put(part, next(arrays), arrays)
            _put(block.conv[2:], next(arrays), arrays)
            for layer in (block.squeeze.down, block.squeeze.slope, block.squeeze.up):
                layer.weight.copy_(next(arrays).reshape(layer.weight.shape))
                if isinstance(layer, nn.Conv2d):
                    assert layer.bias is not None
                    layer.bias.copy_(next(arrays).flatten())
        _put(network.conv2, next(arrays), arrays)
        _put(network.gdconv, next(arrays), arrays)
        _put(nn.Sequential(network.conv3, network.bn), next(arrays), iter([torch.zeros(EMBEDDING)]))
    except (StopIteration, RuntimeError) as error:
        raise DataError(f"{described}: does not describe {NAME} ({error or 'too few constants'})") from error
    if (left := sum(1 for _ in arrays)) > 0:
        raise DataError(f"{described}: does not describe {NAME} ({left} constants too many)")
    return network


def _constants(described: Path, numbers: bytes) -> Iterator[Tensor]:
    """The float16 constants of an IR as float32, in the order of the file."""
    try:
        tree = ElementTree.parse(described)
        for layer in tree.iterfind("layers/layer[@type='Const']"):
            if layer.find("data[@element_type='f16']") is not None:
                yield torch.from_numpy(constant(layer, numbers))
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise DataError(f"{described}: not an OpenVINO IR ({error})") from error


def _put(part: nn.Module, weight: Tensor, rest: Iterator[Tensor]) -> None:
    """Set a convolution's weight and, from `rest`, its bias (in its norm) and the slope after it."""
    convolution, norm, *slope = part.children()
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    convolution.weight.copy_(weight.reshape(convolution.weight.shape))
    if convolution.bias is not None:
        convolution.bias.zero_()
    norm.weight.fill_(1.0)
    norm.bias.copy_(next(rest).flatten())
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0 - norm.eps)
    for one in slope:
        assert isinstance(one, nn.PReLU)
        one.weight.copy_(next(rest).flatten())
