"""Building blocks of the networks in this folder. This module is imported only when a file is converted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def named(**layers: nn.Module) -> nn.Sequential:
    """A sequence of layers with the given names, which are the names in a checkpoint."""
    return nn.Sequential(OrderedDict(layers))


def conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, padding: int | None = None
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution without bias and its batch norm; by default padded so that stride 1 keeps the size."""
    padding = kernel // 2 if padding is None else padding
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


class Residual(nn.Module):
    """A residual block: named layers in sequence, plus the input (through `downsample` if given), then `activation`."""

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        downsample: nn.Module | None = None,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self._names = tuple(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.downsample = downsample
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for name in self._names:
            y = getattr(self, name)(y)
        y = x + y if self.downsample is None else y + self.downsample(x)
        return y if self.activation is None else self.activation(y)


def fold(layer: nn.Linear | nn.Conv2d, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A last layer (linear or a 1x1 convolution) with its eval-mode batch norm folded in: A (D, K) and c (D,)."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    gain = (norm.weight.double() / torch.sqrt(variance.double() + norm.eps)).detach()
    bias = 0.0 if layer.bias is None else layer.bias.detach().double()
    weight = gain[:, None] * layer.weight.detach().double().flatten(1)
    return weight.float(), (gain * (bias - mean.double()) + norm.bias.detach().double()).float()
