"""RetinaFace in torch, with the state-dict keys of its public checkpoints.

This module is imported only when a file is converted.

Deng et al., CVPR 2020 (arXiv 1905.00641). There are two backbones, MobileNet-0.25 (Pytorch_Retinaface and its
descendants) and ResNet-50 (retinaface-pytorch), with the same pyramid, context heads and decoder. The exported graph
takes `image`, uint8 (N, H, W, 3) RGB, with H and W multiples of 32, and returns `loc` (N, P, 4), `conf` (N, P) in 0..1
and `landm` (N, P, 10); `loc` and `landm` are relative to the priors of `networks.priors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgate.convert.blocks import Residual, conv_norm, named
from streamgate.convert.export import export, noise

ANCHORS = 2
"""Priors per cell at each of the three levels."""

OUTPUTS = ("loc", "conf", "landm")
"""Outputs of the exported graph."""

MEAN_RGB = (123.0, 117.0, 104.0)
"""Mean that the MobileNet layout subtracts from its input."""

_FIRST = "body.stage1.0.0.weight"


def _unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, slope: float | None = 0.0, groups: int = 1
) -> list[nn.Module]:
    """Convolution, batch norm and (unless `slope` is None) a leaky ReLU, as a list for `nn.Sequential`."""
    return [*conv_norm(inputs, outputs, kernel, stride, groups), *([] if slope is None else [nn.LeakyReLU(slope)])]


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*_unit(inputs, inputs, 3, stride, 0.1, inputs), *_unit(inputs, outputs, 1, 1, 0.1))


def _mobilenet025() -> nn.Sequential:
    """MobileNet v1 at a quarter of its width; its last three children have strides 8, 16 and 32."""
    return named(
        stage1=nn.Sequential(
            nn.Sequential(*_unit(3, 8, 3, 2, 0.1)),
            _separable(8, 16), _separable(16, 32, 2), _separable(32, 32), _separable(32, 64, 2), _separable(64, 64),
        ),
        stage2=nn.Sequential(_separable(64, 128, 2), *[_separable(128, 128) for _ in range(5)]),
        stage3=nn.Sequential(_separable(128, 256, 2), _separable(256, 256)),
    )  # fmt: skip


def _bottleneck(inputs: int, width: int, stride: int) -> Residual:
    """ResNet's residual block of 1x1, 3x3 and 1x1 convolutions, with the stride in the 3x3 (He et al., v1.5)."""
    layers: dict[str, nn.Module] = {}
    for number, (before, after, kernel, step) in enumerate(
        [(inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)], 1
    ):
        layers[f"conv{number}"], layers[f"bn{number}"] = conv_norm(before, after, kernel, step)
        if number < 3:
            layers[f"relu{number}"] = nn.ReLU()
    plain = stride == 1 and inputs == 4 * width
    return Residual(layers, None if plain else nn.Sequential(*conv_norm(inputs, 4 * width, 1, stride)), nn.ReLU())


def _resnet50() -> nn.Sequential:
    """ResNet-50 without its classifier; its last three children have strides 8, 16 and 32."""

    def stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        rest = [_bottleneck(4 * width, width, 1) for _ in range(blocks - 1)]
        return nn.Sequential(_bottleneck(inputs, width, stride), *rest)

    convolution, norm = conv_norm(3, 64, 7, 2)
    return named(
        conv1=convolution, bn1=norm, relu=nn.ReLU(), maxpool=nn.MaxPool2d(3, 2, 1),
        layer1=stage(64, 64, 3, 1), layer2=stage(256, 128, 4, 2), layer3=stage(512, 256, 6, 2),
        layer4=stage(1024, 512, 3, 2),
    )  # fmt: skip


class ContextModule(nn.Module):
    """SSH context: receptive fields of 3, 5 and 7 built from stacked 3x3 convolutions, concatenated."""

    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.conv3X3 = nn.Sequential(*_unit(channels, half, 3, 1, None))
        self.conv5X5_1 = nn.Sequential(*_unit(channels, quarter, 3, 1, slope))
        self.conv5X5_2 = nn.Sequential(*_unit(quarter, quarter, 3, 1, None))
        self.conv7X7_2 = nn.Sequential(*_unit(quarter, quarter, 3, 1, slope))
        self.conv7x7_3 = nn.Sequential(*_unit(quarter, quarter, 3, 1, None))

    def forward(self, x: Tensor) -> Tensor:
        shared = self.conv5X5_1(x)
        wide = self.conv7x7_3(self.conv7X7_2(shared))
        return F.relu(torch.cat([self.conv3X3(x), self.conv5X5_2(shared), wide], dim=1))


def _heads(channels: int, values: int) -> nn.ModuleList:
    """For each of the three levels, a 1x1 convolution with `values` outputs per prior."""
    return nn.ModuleList(named(conv1x1=nn.Conv2d(channels, ANCHORS * values, 1)) for _ in range(3))


def by_prior(heads: Iterable[nn.Module], levels: Sequence[Tensor]) -> Tensor:
    """The outputs of a network's heads on the contexts (N, C, h, w) of their levels, as (N, P, values)."""
    found = [head(level).permute(0, 2, 3, 1) for head, level in zip(heads, levels, strict=True)]
    return torch.cat([one.reshape(one.shape[0], -1, one.shape[-1] // ANCHORS) for one in found], dim=1)


class RetinaFace(nn.Module):
    """The network as trained: from a normalised picture (N, 3, H, W) to loc, class logits and landmarks.

    `body` is "mobilenet025" or "resnet50".
    """

    def __init__(self, body: str = "mobilenet025") -> None:
        super().__init__()
        build, widths, channels, slope = _BODIES[body]
        self.body = build()
        # Lateral 1x1 convolutions, and 3x3 convolutions on the two finer levels.
        self.fpn: Any = nn.ModuleDict({
            **{f"output{i}": nn.Sequential(*_unit(width, channels, 1, 1, slope)) for i, width in enumerate(widths, 1)},
            **{f"merge{i}": nn.Sequential(*_unit(channels, channels, 3, 1, slope)) for i in (1, 2)},
        })  # fmt: skip
        self.ssh1 = ContextModule(channels, slope)
        self.ssh2 = ContextModule(channels, slope)
        self.ssh3 = ContextModule(channels, slope)
        self.ClassHead = _heads(channels, 2)
        self.BboxHead = _heads(channels, 4)
        self.LandmarkHead = _heads(channels, 10)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = [image]
        for stage in self.body:
            maps.append(stage(maps[-1]))
        fine, middle, coarse = (self.fpn[f"output{i}"](maps[i - 4]) for i in (1, 2, 3))
        middle = self.fpn.merge2(middle + F.interpolate(coarse, scale_factor=2.0, mode="nearest"))
        fine = self.fpn.merge1(fine + F.interpolate(middle, scale_factor=2.0, mode="nearest"))
        context = [self.ssh1(fine), self.ssh2(middle), self.ssh3(coarse)]
        return by_prior(self.BboxHead, context), by_prior(self.ClassHead, context), by_prior(self.LandmarkHead, context)


_BODIES = {
    "mobilenet025": (_mobilenet025, (64, 128, 256), 64, 0.1),
    "resnet50": (_resnet50, (512, 1024, 2048), 256, 0.0),
}
"""For each body: its builder, the channels of its three maps and of the pyramid, and the slope of the leaky ReLU."""


class DetectorGraph(nn.Module):
    """The exported module, which takes raw RGB bytes and returns face probabilities instead of logits."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: RetinaFace, mean: Sequence[float], scale: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        # The mean is not folded into the first bias, because the network pads with zeros after the subtraction.
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(scale).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        planes = image.permute(0, 3, 1, 2).to(torch.float32)
        loc, logits, landmarks = self.network((planes - self.mean) * self.scale)
        return loc, torch.softmax(logits, dim=-1)[..., 1], landmarks


def mobilenet025(state: dict[str, Tensor]) -> DetectorGraph:
    """The MobileNet-0.25 layout: trained on BGR minus (104, 117, 123), unscaled.

    The channel order is folded in: the first convolution's input channels are reversed, so the graph takes RGB.
    """
    reordered = dict(state)
    reordered[_FIRST] = state[_FIRST].flip(1)
    network = RetinaFace("mobilenet025")
    network.load_state_dict(reordered)
    return DetectorGraph(network.eval(), MEAN_RGB, (1.0, 1.0, 1.0))


def resnet50(state: dict[str, Tensor]) -> DetectorGraph:
    """The retinaface-pytorch ResNet-50 layout (456 keys): RGB, ImageNet mean and standard deviation."""
    network = RetinaFace("resnet50")
    network.load_state_dict(state)
    mean = [255.0 * value for value in (0.485, 0.456, 0.406)]
    scale = [1.0 / (255.0 * value) for value in (0.229, 0.224, 0.225)]
    return DetectorGraph(network.eval(), mean, scale)


def export_detector(graph: DetectorGraph) -> Any:
    """The graph as a ModelProto with dynamic batch and picture size. Raises WeightsError."""
    return export(graph, "image", OUTPUTS, noise(2, 64, 96, 3), noise(3, 96, 160, 3), free_size=True)
