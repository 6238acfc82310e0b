"""InsightFace's MobileFaceNet in torch, with the keys of its public checkpoints (loaded lazily, only to convert).

Chen et al. 2018 (arXiv 1804.07573); layout of `recognition/arcface_torch/backbones/mobilefacenet.py`, with any number
of blocks and any width. The graph is that of `convert.mobilefacenet`: `face` uint8 (N, 112, 112, 3) RGB in; `embedding`
(N, D) not normalised, `spread` (N,) and `features` (N, 512), the input of the last affine layer, out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from streamgate.convert.mobilefacenet import RecognizerGraph

_FEATURES = 512
_LEVELS = 127.5
"""The networks were trained on (RGB - 127.5) / 127.5."""


@dataclass(frozen=True)
class Sizes:
    """Blocks in the four stages, 64 times `scale` channels in the first, length of the embedding."""

    blocks: tuple[int, int, int, int]
    scale: int
    embedding: int


def _layers(*parts: nn.Module) -> nn.Module:
    """A module whose parts are named `layers.0`, `layers.1` ..., as in the checkpoints."""
    holder = nn.Sequential()
    holder.add_module("layers", nn.Sequential(*parts))
    return holder


def _linear(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    padding = kernel // 2 if kernel == 3 else 0
    return _layers(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return _layers(convolution, nn.BatchNorm2d(outputs), nn.PReLU(outputs))


def _depthwise(inputs: int, outputs: int, inner: int, stride: int) -> nn.Module:
    return _layers(_unit(inputs, inner, 1), _unit(inner, inner, 3, stride, groups=inner), _linear(inner, outputs, 1))


class _Shortcut(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.layers = inner.get_submodule("layers")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _residual(channels: int, count: int, inner: int) -> nn.Module:
    return _layers(*(_Shortcut(_depthwise(channels, channels, inner, 1)) for _ in range(count)))


class MobileFaceNet(nn.Module):
    """Normalised face (N, 3, 112, 112) to the 512 features before the last affine layer."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        first, second, third, fourth = sizes.blocks
        narrow, wide = 64 * sizes.scale, 128 * sizes.scale
        self.layers = nn.Sequential(
            _unit(3, narrow, 3, 2),
            _unit(narrow, narrow, 3, 1, groups=64) if first == 1 else _residual(narrow, first, 128),
            _depthwise(narrow, narrow, 128, 2),
            _residual(narrow, second, 128),
            _depthwise(narrow, wide, 256, 2),
            _residual(wide, third, 256),
            _depthwise(wide, wide, 512, 2),
            _residual(wide, fourth, 256),
        )
        self.conv_sep = _unit(wide, _FEATURES, 1)
        self.features = _layers(
            _linear(_FEATURES, _FEATURES, 7, groups=_FEATURES),
            nn.Flatten(),
            nn.Linear(_FEATURES, sizes.embedding, bias=False),
            nn.BatchNorm1d(sizes.embedding),
        )

    def forward(self, face: Tensor) -> Tensor:
        pooling: Any = self.features.get_submodule("layers")
        return pooling[1](pooling[0](self.conv_sep(self.layers(face))))

    def last_affine(self) -> tuple[Tensor, Tensor]:
        """The last layer with the following batch norm folded in: A (D, 512) and c (D,)."""
        parts: Any = self.features.get_submodule("layers")
        layer, norm = parts[2], parts[3]
        gain = (norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)).detach()
        weight = gain[:, None] * layer.weight.detach().double()
        bias = norm.bias.detach().double() - gain * norm.running_mean.double()
        return weight.float(), bias.float()


def is_mobilefacenet(keys: Iterable[str]) -> bool:
    """Whether these are the tensor names of such a checkpoint."""
    return {"layers.0.layers.0.weight", "conv_sep.layers.0.weight", "features.layers.2.weight"} <= set(keys)


def sizes_of(state: Mapping[str, Tensor]) -> Sizes:
    """The sizes of the checkpoint with these tensors. Raises KeyError when they belong to another network."""
    plain = "layers.1.layers.1.running_var" in state
    blocks = (1 if plain else _count(state, 1), _count(state, 3), _count(state, 5), _count(state, 7))
    return Sizes(blocks, len(state["layers.0.layers.0.weight"]) // 64, len(state["features.layers.2.weight"]))


def graph(state: Mapping[str, Tensor], drop_rate: float) -> RecognizerGraph:
    """The graph of a checkpoint's state dict. Raises RuntimeError or KeyError when it has another layout."""
    sizes = sizes_of(state)
    if sizes.scale not in range(1, 9) or max(sizes.blocks) > 64 or sizes.embedding > 2048:
        raise KeyError("not an InsightFace MobileFaceNet")
    network = MobileFaceNet(sizes)
    network.load_state_dict(dict(state))
    network.eval()
    weight, bias = network.last_affine()
    return RecognizerGraph(network, weight, bias, drop_rate, [_LEVELS] * 3, [_LEVELS] * 3).eval()


def _count(keys: Iterable[str], index: int) -> int:
    found = [re.match(rf"layers\.{index}\.layers\.(\d{{1,2}})\.", key) for key in keys]
    return 1 + max((int(match.group(1)) for match in found if match), default=-1)
