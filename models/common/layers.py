"""Layers that networks of several recipes consist of."""

from __future__ import annotations

from torch import nn


def unit(inputs: int, outputs: int, stride: int = 1, side: int = 3, groups: int = 1) -> nn.Sequential:
    """A convolution without bias, a batch norm and a ReLU; inputs, outputs: numbers of channels."""
    convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
