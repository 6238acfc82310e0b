"""MobileFaceNet in torch, with the keys of the foamliu checkpoint, and the exported graph's SER-FIQ head.

Chen et al. 2018 (arXiv 1804.07573). The graph takes `face`, uint8 (N, 112, 112, 3) RGB, ArcFace-aligned, and returns
`embedding` (N, 128), not normalised, `spread` (N,), and `features` (N, 512). `features` is x of docs/design.md 4.1, the
input of the last affine layer A x + c, to which dropout is applied.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamgate.convert.blocks import Residual, conv_norm, fold, named

_BLOCKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
"""Expansion, output channels, repetitions and first stride of the inverted residual stages."""


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(*conv_norm(inputs, outputs, kernel, stride, groups), nn.ReLU6())


def _inverted_residual(inputs: int, outputs: int, stride: int, expansion: int) -> nn.Module:
    """1x1 expansion, 3x3 depthwise convolution, 1x1 projection without activation; a shortcut if shapes match."""
    hidden = inputs * expansion
    conv = nn.Sequential(
        _unit(inputs, hidden, 1), _unit(hidden, hidden, 3, stride, groups=hidden), *conv_norm(hidden, outputs, 1)
    )
    return Residual({"conv": conv}) if stride == 1 and inputs == outputs else named(conv=conv)


def _separable(channels: int) -> nn.Sequential:
    """A 3x3 depthwise and a 1x1 pointwise convolution, each followed by a plain ReLU."""
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    pointwise = nn.Conv2d(channels, channels, 1, bias=False)
    return named(depthwise=depthwise, bn1=nn.BatchNorm2d(channels), relu1=nn.ReLU(),
                 pointwise=pointwise, bn2=nn.BatchNorm2d(channels), relu2=nn.ReLU())  # fmt: skip


class MobileFaceNet(nn.Module):
    """From a normalised face (N, 3, 112, 112) to the 512 features before the last affine layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _unit(3, 64, 3, 2)
        self.dw_conv = _separable(64)
        blocks: list[nn.Module] = []
        channels = 64
        for expansion, outputs, count, first_stride in _BLOCKS:
            for index in range(count):
                blocks.append(_inverted_residual(channels, outputs, first_stride if index == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*blocks)
        self.conv2 = _unit(channels, 512, 1)
        # A depthwise 7x7 over the whole 7x7 map: a learned weighted average for each channel.
        self.gdconv = named(depthwise=nn.Conv2d(512, 512, 7, groups=512, bias=False), bn=nn.BatchNorm2d(512))
        self.conv3 = nn.Conv2d(512, 128, 1)
        self.bn = nn.BatchNorm2d(128)

    def forward(self, face: Tensor) -> Tensor:
        x = self.features(self.dw_conv(self.conv1(face)))
        return self.gdconv(self.conv2(x)).flatten(1)

    def last_affine(self) -> tuple[Tensor, Tensor]:
        """The last convolution with its eval-mode batch norm folded in: A (128, 512) and c (128,)."""
        return fold(self.conv3, self.bn)


class RecognizerGraph(nn.Module):
    """The exported module: from RGB bytes to embedding, closed-form spread (docs/design.md 4.1) and features."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, backbone: nn.Module, weight: Tensor, bias: Tensor, drop_rate: float,
                 mean: list[float], deviation: list[float]) -> None:  # fmt: skip
        super().__init__()
        if not 0.0 <= drop_rate < 1.0:
            raise ValueError(f"drop rate {drop_rate} is not in [0, 1)")
        self.backbone = backbone
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.odds = drop_rate / (1.0 - drop_rate)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", 1.0 / torch.tensor(deviation).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        planes = face.permute(0, 3, 1, 2).to(torch.float32)
        features = self.backbone((planes - self.mean) * self.scale)
        embedding, spread = closed_form(self.weight, self.bias, features, self.odds)
        return embedding, spread, features


def closed_form(weight: Tensor, bias: Tensor, features: Tensor, odds: float) -> tuple[Tensor, Tensor]:
    """Embedding (N, D) and spread (N,) of features (N, K) for the last layer `weight` (D, K) x + `bias` (D,).

    They are computed in float32 by the formula of docs/design.md 4.1, with odds = p / (1 - p).
    """
    # Each face is a separate product A @ x with x as a column, so that the batch size cannot change the result's bits.
    column = features.unsqueeze(2)
    embedding = torch.matmul(weight, column) + bias[:, None]
    along = torch.matmul(weight.t(), embedding)
    power = (embedding * embedding).sum(dim=1)
    lengths = (weight * weight).sum(dim=0)[None, :, None]
    across = column * column * (lengths - along * along / power[:, None])
    trace = odds * across.sum(dim=1)
    spread = torch.sqrt(2.0 * trace / (power + trace))
    return embedding.squeeze(2), spread.squeeze(1)


def foamliu(state: dict[str, Tensor], drop_rate: float) -> RecognizerGraph:
    """The foamliu layout: RGB, ImageNet mean and standard deviation."""
    network = MobileFaceNet()
    network.load_state_dict(state)
    network.eval()
    mean = [255.0 * value for value in (0.485, 0.456, 0.406)]
    deviation = [255.0 * value for value in (0.229, 0.224, 0.225)]
    return RecognizerGraph(network, *network.last_affine(), drop_rate, mean, deviation).eval()
