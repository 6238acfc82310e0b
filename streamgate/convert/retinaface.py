"""RetinaFace in torch, with the state-dict keys of its public checkpoints (loaded lazily, only to convert).

Deng et al., CVPR 2020 (arXiv 1905.00641). Two bodies share the pyramid, the context heads and the decoder:
MobileNet-0.25 (Pytorch_Retinaface and its descendants) and ResNet-50 (retinaface-pytorch). The exported
graph takes `image` uint8 (N, H, W, 3) RGB with H and W multiples of 32 and gives `loc` (N, P, 4), `conf`
(N, P) in 0..1 and `landm` (N, P, 10), all relative to the priors of `networks.priors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgate.convert.export import export, noise

ANCHORS = 2
"""Priors per cell at each of the three levels."""

OUTPUTS = ("loc", "conf", "landm")
"""Outputs of the exported graph."""

MEAN_RGB = (123.0, 117.0, 104.0)
"""Subtracted from the input of the MobileNet layout."""

_FIRST = "body.stage1.0.0.weight"


def _unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, slope: float | None = 0.0, groups: int = 1
) -> list[nn.Module]:
    """Convolution, batch norm and (unless `slope` is None) a leaky ReLU, as a list for `nn.Sequential`."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if slope is not None:
        layers.append(nn.LeakyReLU(slope))
    return layers


class MobileNetBody(nn.Module):
    """MobileNet v1 at a quarter of its width; features at strides 8, 16, 32 with 64, 128, 256 channels."""

    widths = (64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            nn.Sequential(*_unit(3, 8, 3, 2, 0.1)),
            self._separable(8, 16), self._separable(16, 32, 2), self._separable(32, 32),
            self._separable(32, 64, 2), self._separable(64, 64),
        )  # fmt: skip
        self.stage2 = nn.Sequential(self._separable(64, 128, 2), *[self._separable(128, 128) for _ in range(5)])
        self.stage3 = nn.Sequential(self._separable(128, 256, 2), self._separable(256, 256))

    @staticmethod
    def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
        depthwise = _unit(inputs, inputs, 3, stride, 0.1, groups=inputs)
        return nn.Sequential(*depthwise, *_unit(inputs, outputs, 1, 1, 0.1))

    def forward(self, image: Tensor) -> list[Tensor]:
        first = self.stage1(image)
        second = self.stage2(first)
        return [first, second, self.stage3(second)]


class _Bottleneck(nn.Module):
    """ResNet's 1x1, 3x3, 1x1 residual block with the stride on the 3x3 (He et al., the v1.5 variant)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(*_unit(inputs, outputs, 1, stride, None))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet50Body(nn.Module):
    """ResNet-50 without its classifier; features at strides 8, 16, 32 with 512, 1024, 2048 channels."""

    widths = (512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._stage(64, 64, 3, 1)
        self.layer2 = self._stage(256, 128, 4, 2)
        self.layer3 = self._stage(512, 256, 6, 2)
        self.layer4 = self._stage(1024, 512, 3, 2)

    @staticmethod
    def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = _Bottleneck(inputs, width, stride)
        return nn.Sequential(first, *[_Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)])

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        first = self.layer2(self.layer1(x))
        second = self.layer3(first)
        return [first, second, self.layer4(second)]


class _FeaturePyramid(nn.Module):
    """Lateral 1x1 convolutions, top-down sums, and a 3x3 on the two finer levels."""

    def __init__(self, widths: Sequence[int], channels: int, slope: float) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (
            nn.Sequential(*_unit(width, channels, 1, 1, slope)) for width in widths
        )
        self.merge1 = nn.Sequential(*_unit(channels, channels, 3, 1, slope))
        self.merge2 = nn.Sequential(*_unit(channels, channels, 3, 1, slope))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = self.output1(features[0]), self.output2(features[1]), self.output3(features[2])
        middle = self.merge2(middle + F.interpolate(coarse, scale_factor=2.0, mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, scale_factor=2.0, mode="nearest"))
        return [fine, middle, coarse]


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


class _PriorHead(nn.Module):
    """A 1x1 convolution with `values` outputs per prior: (N, C, h, w) -> (N, h*w*2, values)."""

    def __init__(self, channels: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(channels, ANCHORS * values, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.values)


class RetinaFace(nn.Module):
    """The network as trained: normalised picture (N, 3, H, W) in, loc, class logits and landmarks out."""

    def __init__(self, body: MobileNetBody | ResNet50Body, channels: int) -> None:
        super().__init__()
        slope = 0.1 if channels <= 64 else 0.0
        self.body = body
        self.fpn = _FeaturePyramid(body.widths, channels, slope)
        self.ssh1 = ContextModule(channels, slope)
        self.ssh2 = ContextModule(channels, slope)
        self.ssh3 = ContextModule(channels, slope)
        self.ClassHead = nn.ModuleList(_PriorHead(channels, 2) for _ in range(3))
        self.BboxHead = nn.ModuleList(_PriorHead(channels, 4) for _ in range(3))
        self.LandmarkHead = nn.ModuleList(_PriorHead(channels, 10) for _ in range(3))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        levels = self.fpn(self.body(image))
        context = [self.ssh1(levels[0]), self.ssh2(levels[1]), self.ssh3(levels[2])]
        loc, logits, landmarks = (
            torch.cat([head(level) for head, level in zip(heads, context, strict=True)], dim=1)
            for heads in (self.BboxHead, self.ClassHead, self.LandmarkHead)
        )
        return loc, logits, landmarks


class DetectorGraph(nn.Module):
    """The exported module: raw RGB bytes in, face probability instead of logits out."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: RetinaFace, mean: Sequence[float], scale: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        # Subtracted in the graph instead of folded into the first bias: the network pads with zeros afterwards.
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
    network = RetinaFace(MobileNetBody(), channels=64)
    network.load_state_dict(reordered)
    return DetectorGraph(network.eval(), MEAN_RGB, (1.0, 1.0, 1.0))


def resnet50(state: dict[str, Tensor]) -> DetectorGraph:
    """The retinaface-pytorch ResNet-50 layout (456 keys): RGB, ImageNet mean and standard deviation."""
    network = RetinaFace(ResNet50Body(), channels=256)
    network.load_state_dict(state)
    mean = [255.0 * value for value in (0.485, 0.456, 0.406)]
    scale = [1.0 / (255.0 * value) for value in (0.229, 0.224, 0.225)]
    return DetectorGraph(network.eval(), mean, scale)


def export_detector(graph: DetectorGraph) -> Any:
    """The graph as a ModelProto with open batch and picture size. Raises WeightsError."""
    return export(graph, "image", OUTPUTS, noise(2, 64, 96, 3), noise(3, 96, 160, 3), free_size=True)
