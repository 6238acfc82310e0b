"""InsightFace's iresnet in torch, with the keys of its public `backbone.pth` files (loaded lazily, only to convert).

Deng et al., ArcFace, CVPR 2019 (arXiv 1801.07698); layout of `recognition/arcface_torch/backbones/iresnet.py`. The
graph is that of `convert.mobilefacenet`: `face` uint8 (N, 112, 112, 3) RGB in; `embedding` (N, 512) not normalised,
`spread` (N,) and `features` (N, 25088), the input of the last affine layer, out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from streamgate.convert.mobilefacenet import RecognizerGraph

DEPTHS: Mapping[tuple[int, int, int, int], int] = {
    (2, 2, 2, 2): 18,
    (3, 4, 6, 3): 34,
    (3, 4, 14, 3): 50,
    (3, 13, 30, 3): 100,
    (6, 26, 60, 6): 200,
}
"""Blocks in the four stages -> number in the network's name."""

EMBEDDING = 512
_WIDTHS = (64, 128, 256, 512)
_MAP_SIDE = 7
_LEVELS = 127.5
"""The networks were trained on (RGB - 127.5) / 127.5."""


class _Block(nn.Module):
    """Batch norm, 3x3, batch norm, PReLU, 3x3 with the stride, batch norm; with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + shortcut


class IResNet(nn.Module):
    """Normalised face (N, 3, 112, 112) to the 25,088 features before the last affine layer."""

    def __init__(self, blocks: Iterable[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        inputs = 64
        for number, (width, count) in enumerate(zip(_WIDTHS, blocks, strict=True), 1):
            stage = [_Block(inputs, width, 2), *(_Block(width, width, 1) for _ in range(count - 1))]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            inputs = width
        self.bn2 = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs * _MAP_SIDE**2, EMBEDDING)
        self.features = nn.BatchNorm1d(EMBEDDING)

    def forward(self, face: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(face)))
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return self.bn2(x).flatten(1)

    def last_affine(self) -> tuple[Tensor, Tensor]:
        """`fc` with the following batch norm folded in: A (512, 25088) and c (512,)."""
        norm = self.features
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None
        gain = (norm.weight.double() / torch.sqrt(variance.double() + norm.eps)).detach()
        weight = gain[:, None] * self.fc.weight.detach().double()
        bias = gain * (self.fc.bias.detach().double() - mean.double()) + norm.bias.detach().double()
        return weight.float(), bias.float()


def blocks_of(keys: Iterable[str]) -> tuple[int, int, int, int] | None:
    """Blocks in the four stages of the iresnet with these keys; None when they belong to another network."""
    counts = [0, 0, 0, 0]
    names = set(keys)
    if not {"conv1.weight", "prelu.weight", "fc.weight", "features.running_mean"} <= names:
        return None
    for name in names:
        found = re.fullmatch(r"layer([1-4])\.(\d{1,3})\.prelu\.weight", name)
        if found:
            stage = int(found.group(1)) - 1
            counts[stage] = max(counts[stage], int(found.group(2)) + 1)
    return counts[0], counts[1], counts[2], counts[3]


def graph(state: Mapping[str, Tensor], drop_rate: float) -> RecognizerGraph:
    """The graph of a checkpoint's state dict. Raises RuntimeError or KeyError when it has another layout."""
    blocks = blocks_of(state)
    if blocks is None or blocks not in DEPTHS:
        raise KeyError("not an iresnet of 18, 34, 50, 100 or 200 layers")
    network = IResNet(blocks)
    network.load_state_dict(dict(state))
    network.eval()
    weight, bias = network.last_affine()
    return RecognizerGraph(network, weight, bias, drop_rate, [_LEVELS] * 3, [_LEVELS] * 3).eval()
