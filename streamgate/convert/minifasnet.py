"""MiniFASNetV2 of Silent-Face-Anti-Spoofing (Minivision, Apache-2.0) in torch, with the keys of its checkpoint.

Graph: `face` uint8 (N, 80, 80, 3) RGB, 2.7 times the box, in; `live` (N,) out, the probability of a live face as
opposed to a face on a screen or a print. Loaded lazily, only to convert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

CROP_SIDE = 80
LIVE = 1
"""The class of live faces among the three."""
# Per stage of the pruned network: outer channels, inner channels of the first block, inner channels of the others.
_STAGES = ((64, 103, (13, 13, 13, 13)), (128, 231, (231, 52, 26, 77, 26, 26)), (128, 308, (26, 26)))
_FEATURES = 512
_EMBEDDING = 128


def _named(convolution: nn.Conv2d, *, active: bool) -> nn.Sequential:
    found = nn.Sequential()
    found.add_module("conv", convolution)
    found.add_module("bn", nn.BatchNorm2d(convolution.out_channels))
    if active:
        found.add_module("prelu", nn.PReLU(convolution.out_channels))
    return found


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return _named(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), active=True)


class _Depthwise(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = _unit(inputs, inner, 1)
        self.conv_dw = _unit(inner, inner, 3, stride, groups=inner)
        self.project = _named(nn.Conv2d(inner, outputs, 1, bias=False), active=False)
        self.shortcut = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.shortcut else y


class _Stage(nn.Module):
    def __init__(self, channels: int, inner: Sequence[int]) -> None:
        super().__init__()
        self.model = nn.Sequential(*(_Depthwise(channels, one, channels, 1) for one in inner))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class MiniFASNetV2(nn.Module):
    """BGR 0..255 (N, 3, 80, 80) to logits (N, 3). Attribute names follow the published checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _unit(3, 32, 3, 2)
        self.conv2_dw = _unit(32, 32, 3, groups=32)
        channels = 32
        for (outputs, first, inner), name in zip(_STAGES, ("3", "4", "5"), strict=True):
            self.add_module(f"conv_{int(name) - 1}{name}", _Depthwise(channels, first, outputs, 2))
            self.add_module(f"conv_{name}", _Stage(outputs, inner))
            channels = outputs
        self.conv_6_sep = _unit(channels, _FEATURES, 1)
        self.conv_6_dw = _named(nn.Conv2d(_FEATURES, _FEATURES, 5, groups=_FEATURES, bias=False), active=False)
        self.linear = nn.Linear(_FEATURES, _EMBEDDING, bias=False)
        self.bn = nn.BatchNorm1d(_EMBEDDING)
        self.prob = nn.Linear(_EMBEDDING, 3, bias=False)

    def forward(self, face: Tensor) -> Tensor:
        x = self.conv2_dw(self.conv1(face))
        for name in ("conv_23", "conv_3", "conv_34", "conv_4", "conv_45", "conv_5"):
            x = getattr(self, name)(x)
        return self.prob(self.bn(self.linear(self.conv_6_dw(self.conv_6_sep(x)).flatten(1))))


class LivenessGraph(nn.Module):
    """The exported module: RGB bytes in, the probability of a live face out."""

    def __init__(self, network: MiniFASNetV2) -> None:
        super().__init__()
        self.network = network

    def forward(self, face: Tensor) -> tuple[Tensor]:
        planes = face.permute(0, 3, 1, 2).flip(1).to(torch.float32)
        return (torch.softmax(self.network(planes), dim=1)[:, LIVE],)


def graph(state: Mapping[str, Tensor]) -> LivenessGraph:
    """The graph of a checkpoint's state dict. Raises RuntimeError when it has another layout."""
    network = MiniFASNetV2()
    network.load_state_dict(dict(state))
    return LivenessGraph(network).eval()
