"""MiniFASNetV2 of Silent-Face-Anti-Spoofing (Minivision, Apache-2.0) in torch, with the keys of its checkpoint.

The graph takes `face`, uint8 (N, 80, 80, 3) RGB, a crop of 2.7 times the box, and returns `live` (N,), the probability
of a live face as opposed to a face on a screen or in print.

This module is imported only when a file is converted.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from streamgate.convert.blocks import Residual, conv_norm, named

CROP_SIDE = 80
LIVE = 1
"""Index of the class of live faces among the three classes."""
# Per stage of the pruned network: outer channels, inner channels of the first block, inner channels of the others.
_STAGES = ((64, 103, (13, 13, 13, 13)), (128, 231, (231, 52, 26, 77, 26, 26)), (128, 308, (26, 26)))
_FEATURES = 512
_EMBEDDING = 128


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution, norm = conv_norm(inputs, outputs, kernel, stride, groups)
    return named(conv=convolution, bn=norm, prelu=nn.PReLU(outputs))


def _linear(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    convolution, norm = conv_norm(inputs, outputs, kernel, groups=groups, padding=0)
    return named(conv=convolution, bn=norm)


def _depthwise(inputs: int, inner: int, outputs: int, stride: int) -> nn.Module:
    """1x1 expansion, 3x3 depthwise convolution, 1x1 projection without activation; a shortcut if the stride is 1."""
    layers = {
        "conv": _unit(inputs, inner, 1),
        "conv_dw": _unit(inner, inner, 3, stride, groups=inner),
        "project": _linear(inner, outputs, 1),
    }
    return Residual(layers) if stride == 1 else named(**layers)


class MiniFASNetV2(nn.Module):
    """The graph described above. Attribute names follow the published checkpoint, which takes BGR 0..255."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _unit(3, 32, 3, 2)
        self.conv2_dw = _unit(32, 32, 3, groups=32)
        channels = 32
        for number, (outputs, first, inner) in enumerate(_STAGES, 3):
            stage = nn.Sequential(*(_depthwise(outputs, one, outputs, 1) for one in inner))
            self.add_module(f"conv_{number - 1}{number}", _depthwise(channels, first, outputs, 2))
            self.add_module(f"conv_{number}", named(model=stage))
            channels = outputs
        self.conv_6_sep = _unit(channels, _FEATURES, 1)
        self.conv_6_dw = _linear(_FEATURES, _FEATURES, 5, groups=_FEATURES)
        self.linear = nn.Linear(_FEATURES, _EMBEDDING, bias=False)
        self.bn = nn.BatchNorm1d(_EMBEDDING)
        self.prob = nn.Linear(_EMBEDDING, 3, bias=False)

    def forward(self, face: Tensor) -> tuple[Tensor]:
        planes = face.permute(0, 3, 1, 2).flip(1).to(torch.float32)
        x = self.conv2_dw(self.conv1(planes))
        for name in ("conv_23", "conv_3", "conv_34", "conv_4", "conv_45", "conv_5"):
            x = getattr(self, name)(x)
        logits = self.prob(self.bn(self.linear(self.conv_6_dw(self.conv_6_sep(x)).flatten(1))))
        return (torch.softmax(logits, dim=1)[:, LIVE],)


def graph(state: Mapping[str, Tensor]) -> MiniFASNetV2:
    """The graph of a checkpoint's state dict. Raises RuntimeError if it has another layout."""
    network = MiniFASNetV2()
    network.load_state_dict(dict(state))
    return network.eval()
