"""Half precision where it is faster: on the CPU only for 1x1 convolutions, on CUDA everywhere."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def halve_pointwise(network: nn.Module) -> None:
    """Let 1x1 convolutions on maps run in bfloat16 and everything else in float32, in place (CPU).

    With plain autocast, the backward pass of depthwise convolutions in bfloat16 takes longer than all the rest.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if module.groups > 1:
            _replace(module, _full)
        elif module.kernel_size == (1, 1):
            _replace(module, _half)


def autocast(device: torch.device, half: bool) -> contextlib.AbstractContextManager[Any]:
    """The context for forward passes: autocast on CUDA, nothing on the CPU (see `halve_pointwise`)."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16, enabled=half)
    return contextlib.nullcontext()


def _replace(module: nn.Conv2d, run: Any) -> None:
    # Set on the instance, so that the class, which the exported network uses, does not change.
    module.forward = run.__get__(module)  # type: ignore[method-assign]


def _half(self: nn.Conv2d, x: Tensor) -> Tensor:
    if x.shape[2] * x.shape[3] == 1:
        return F.conv2d(x.float(), self.weight, self.bias)
    bias = None if self.bias is None else self.bias.bfloat16()
    return F.conv2d(x.bfloat16(), self.weight.bfloat16(), bias)


def _full(self: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x.float(), self.weight, self.bias, self.stride, self.padding, 1, self.groups)
