"""Adam in coordinates in which a convolution's inputs are uncorrelated.

Neighbouring pixels of a map are nearly equal, and channels are correlated. A kernel's response to the small differences
between pixels, which detects edges, hardly affects a squared error; therefore, gradient descent learns it slowly. Here,
every weight is written as w = s u R, and Adam works on u. R is (A + damping)^(-1/2), A is the covariance of the
convolution's input patches, and s is a fixed size for each output channel. The mean of the inputs is compensated as
well: when a weight changes, the norm or bias after it changes so that the mean output stays the same. This is the
input-side half of K-FAC (Martens and Grosse, arXiv 1503.05671) with a fixed A. The network itself does not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DAMPING = 1e-3
"""Damping added to A, as a share of its mean eigenvalue."""
_PLACES = 2048
"""Number of positions of a map that one batch adds to A."""


class Whitening:
    """Whitened coordinates of all convolutions of a network whose norms are frozen.

    Usage: run forward passes inside `measure()`, then call `settle()`. Pass `parameters()` to the optimiser. In each
    step, call `pull()` after the backward pass and `push()` after the optimiser's step.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = [_Layer(conv, norm) for conv, norm in convolutions(network)]

    def measure(self) -> Measuring:
        """A context in which forward passes add to the statistics."""
        return Measuring(self._layers)

    def settle(self) -> None:
        """Turn the statistics gathered so far into coordinates."""
        for layer in self._layers:
            layer.settle()

    def parameters(self) -> list[Tensor]:
        """The coordinates: leaf tensors whose gradients `pull` sets."""
        return [layer.u for layer in self._layers]

    def pull(self) -> None:
        """Compute the gradients of the coordinates from the gradients of the weights."""
        for layer in self._layers:
            layer.pull()

    def push(self) -> None:
        """Compute the weights from the coordinates."""
        for layer in self._layers:
            layer.push()

    def state(self) -> list[dict[str, Tensor]]:
        """What `load_state` needs: one dict per convolution."""
        return [layer.state() for layer in self._layers]

    def load_state(self, state: list[Mapping[str, Tensor]]) -> None:
        """Continue from `state()`; the network's own weights must have been loaded."""
        for layer, kept in zip(self._layers, state, strict=True):
            layer.load_state(kept)


def convolutions(network: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
    """Every convolution and the norm after it (None: the convolution has a bias instead)."""
    followed: dict[nn.Module, nn.BatchNorm2d] = {}
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for first, second in zip(module, list(module)[1:], strict=False):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    followed[first] = second
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            yield module, followed.get(module)


class Measuring:
    """A context in which hooks on all convolutions collect statistics."""

    def __init__(self, layers: list[_Layer]) -> None:
        self._layers = layers
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        self._hooks = [layer.conv.register_forward_pre_hook(layer.see) for layer in self._layers]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


class _Layer:
    """One convolution. Patches are [groups, D], D = inputs of a group times taps; A is [groups, D, D]."""

    u: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> None:
        self.conv, self.norm = conv, norm
        self._size = conv.in_channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1]
        self._second = torch.zeros(conv.groups, self._size, self._size, dtype=torch.float64)
        self._first = torch.zeros(conv.groups, self._size, dtype=torch.float64)
        self._batches = 0

    @torch.no_grad()
    def see(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Add one batch's input patches to the statistics."""
        x, conv = inputs[0].detach().float(), self.conv
        patches = F.unfold(x[:4], conv.kernel_size, padding=conv.padding, stride=conv.stride)
        patches = patches.transpose(1, 2).reshape(-1, conv.groups, self._size)
        patches = patches[:: max(1, len(patches) // _PLACES)].transpose(0, 1)
        self._second += (patches.transpose(1, 2) @ patches / patches.shape[1]).double().cpu()
        self._first += patches.mean(dim=1).double().cpu()
        self._batches += 1

    @torch.no_grad()
    def settle(self) -> None:
        """Compute R, the mean patch, and the weight in its coordinates."""
        mean = self._first / self._batches
        covariance = self._second / self._batches - mean[:, :, None] * mean[:, None, :]
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp(min=0) + DAMPING * values.mean(dim=1, keepdim=True).clamp(min=1e-12)
        root = (vectors * values.rsqrt()[:, None, :]) @ vectors.transpose(1, 2)
        inverse = (vectors * values.sqrt()[:, None, :]) @ vectors.transpose(1, 2)
        device = self.conv.weight.device
        self._root, self._mean = root.float().to(device), mean.float().to(device)
        whole = torch.bmm(self._grouped(self.conv.weight), inverse.float().to(device))
        self._scale = whole.norm(dim=2, keepdim=True).clamp(min=1e-6)
        self._adopt(whole / self._scale)

    def pull(self) -> None:
        """Compute the gradient of u: the gradient of the weight minus the effect of the change in the norm or bias."""
        gradient = self._grouped(self.conv.weight.grad)
        along = self._output_gradient().reshape(self.conv.groups, -1)
        gradient = gradient - along[:, :, None] * self._mean[:, None, :]
        self.u.grad = torch.bmm(gradient, self._root) * self._scale

    @torch.no_grad()
    def push(self) -> None:
        """Compute the weight from u, and change the norm or bias by the change in the mean patch's output."""
        weight = torch.bmm(self.u * self._scale, self._root)
        change = ((weight - self._grouped(self.conv.weight)) * self._mean[:, None, :]).sum(dim=2).reshape(-1)
        self.conv.weight.copy_(weight.reshape(self.conv.weight.shape))
        if self.norm is not None:
            self.norm.running_mean += change  # type: ignore[operator]
        else:
            self.conv.bias -= change  # type: ignore[operator]

    def state(self) -> dict[str, Tensor]:
        """The coordinates and the statistics from which they were computed."""
        return {"u": self.u.detach(), "root": self._root, "mean": self._mean, "scale": self._scale}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        device = self.conv.weight.device
        self._root, self._mean, self._scale = (state[name].to(device) for name in ("root", "mean", "scale"))
        self._adopt(state["u"].to(device))

    def _adopt(self, u: Tensor) -> None:
        self.u = u.clone().requires_grad_(True)

    def _output_gradient(self) -> Tensor:
        """Gradient of the convolution's output, summed over all positions."""
        if self.norm is None:
            return self.conv.bias.grad  # type: ignore[union-attr,return-value]
        deviation = (self.norm.running_var + self.norm.eps).sqrt()  # type: ignore[operator]
        return self.norm.weight.detach() / deviation * self.norm.bias.grad

    def _grouped(self, weight: Tensor | None) -> Tensor:
        assert weight is not None
        return weight.detach().reshape(self.conv.groups, -1, self._size)
