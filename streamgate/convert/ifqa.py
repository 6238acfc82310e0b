"""IFQA (Jo et al., WACV 2023, arXiv 2211.07077): a U-Net discriminator whose per-pixel realness is the score.

One definition covers three variants. `OFFICIAL` is the published network (105,172,833 parameters in 122
tensors, checkpoint key "D"). `SLIM` and `SMALL` are trained by this project; they have the same residual blocks behind
a stem that folds pixel blocks into channels. The stem reduces the number of positions to a sixteenth without losing
evidence of noise or JPEG compression. The input is always float [N, 3, 256, 256] RGB, FFHQ-aligned,
(x / 255 - 0.5) / 0.5.

This module needs torch and is imported only when a network is trained, imported or exported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT_SIDE = 256
OUTPUTS = ("score", "map")
# Centre and semi-axes (x, y) as shares of the side. They cover an FFHQ-aligned face from brow to chin.
FACE_ELLIPSE = (0.5, 0.575, 0.27, 0.345)


@dataclass(frozen=True)
class IfqaSpec:
    """The architecture of one IFQA network.

    Attributes:
        widths: channels after the stem and after each encoder, which halves the resolution.
        unshuffle: side of the pixel blocks that the stem folds into channels; 1 if there is no stem, so that widths[0]
            is 3, the number of input channels.
        bottleneck: number of residual blocks at the lowest resolution.
        norm: "instance" or "batch".
        light_decoder: decoders convolve to the new width before they double the resolution (a quarter of the cost),
            and the map stays at the stem's resolution.
        temperature: divisor of the logits before the sigmoid of score and map.
        stem_kernel: side of the stem's convolution, in blocks.
        sizes: whether the stem's convolution also gets the absolute value of each frequency.
    """

    widths: tuple[int, ...]
    unshuffle: int
    bottleneck: int
    norm: str
    light_decoder: bool
    temperature: float = 1.0
    stem_kernel: int = 3
    sizes: bool = False


OFFICIAL = IfqaSpec((3, 64, 128, 256, 512, 1024), unshuffle=1, bottleneck=4, norm="instance", light_decoder=False)
# LSGAN training pushes the scores of all degraded faces to zero; the temperature keeps bad and worse faces apart.
SLIM = IfqaSpec((64, 96, 128, 192), unshuffle=4, bottleneck=2, norm="batch", light_decoder=True, temperature=3.0)
# Distilled from SLIM; it has half the width and less than a quarter of the cost.
SMALL = IfqaSpec(
    (32, 48, 64, 96), unshuffle=4, bottleneck=2, norm="batch", light_decoder=True, temperature=3.0,
    stem_kernel=1, sizes=True,
)  # fmt: skip


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.BatchNorm2d(channels)


def block_transform(side: int) -> np.ndarray:
    """Orthonormal matrix [3 side^2, 3 side^2]: the 2-D DCT of the luma and of two colour differences of a block.

    Rows: colour, then vertical, then horizontal frequency; columns: colour channel, then row, then column of the block.
    """
    n = np.arange(side)
    dct = np.cos(np.pi * (2 * n[None, :] + 1) * n[:, None] / (2 * side)) * np.sqrt(2 / side)
    dct[0] /= np.sqrt(2)
    colour = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    return np.kron(colour, np.kron(dct, dct)).astype(np.float32)


class _BlockStem(nn.Module):
    """Folds side x side pixels into channels and scales every frequency to unit variance before convolving.

    Noise and JPEG artefacts have about a hundredth of the amplitude of the image: without this scaling, the first
    convolution needs thousands of training steps to detect them.
    """

    basis: Tensor

    def __init__(self, side: int, channels: int, kernel: int, sizes: bool) -> None:
        """With `sizes`, the absolute values of all frequencies are convolved too, because noise has no fixed sign."""
        super().__init__()
        self.side, self.sizes = side, sizes
        basis = torch.from_numpy(block_transform(side)).reshape(-1, 3, side, side)
        self.register_buffer("basis", basis, persistent=False)
        self.whiten = nn.BatchNorm2d(len(basis), affine=False, eps=1e-6)
        self.conv = nn.Conv2d((1 + sizes) * len(basis), channels, kernel, padding=kernel // 2)

    def forward(self, face: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, channels, H / side, W / side]."""
        # Use float32 even under autocast: bfloat16 would round off exactly the details that the stem must preserve.
        with torch.autocast(face.device.type, enabled=False):
            blocks = self.whiten(F.conv2d(face.float(), self.basis, stride=self.side))
        blocks = blocks.clamp(-8, 8)
        return self.conv(torch.cat([blocks, blocks.abs()], dim=1) if self.sizes else blocks)


class _ResBlock(nn.Module):
    """Pre-activation residual block whose sum is divided by sqrt(2); halves the resolution if `down`."""

    def __init__(self, channels_in: int, channels_out: int, norm: str, down: bool = False) -> None:
        super().__init__()
        self.down = down
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm1 = _norm(norm, channels_in)
        self.norm2 = _norm(norm, channels_in)
        self.conv1x1 = nn.Conv2d(channels_in, channels_out, 1, bias=False) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, H, W] -> [N, channels_out, H, W], H and W halved when `down`."""
        # A 1x1 convolution and average pooling commute, so the shortcut pools first, which is four times cheaper.
        shortcut = F.avg_pool2d(x, 2) if self.down else x
        if self.conv1x1 is not None:
            shortcut = self.conv1x1(shortcut)
        y = self.conv1(F.leaky_relu(self.norm1(x), 0.2))
        if self.down:
            y = F.avg_pool2d(y, 2)
        y = self.conv2(F.leaky_relu(self.norm2(y), 0.2))
        return (shortcut + y) / math.sqrt(2)


class _UpBlock(nn.Module):
    """Residual block that doubles the resolution (nearest) and divides its sum by sqrt(2)."""

    def __init__(self, channels_in: int, channels_out: int, norm: str, light: bool) -> None:
        super().__init__()
        inner = channels_out if light else channels_in
        self.light = light
        self.conv1 = nn.Conv2d(channels_in, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, channels_out, 3, padding=1)
        self.norm1 = _norm(norm, channels_in)
        self.norm2 = _norm(norm, inner)
        self.conv1x1 = nn.Conv2d(channels_in, channels_out, 1, bias=False) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, H, W] -> [N, channels_out, 2 H, 2 W]."""
        # Nearest upsampling and a 1x1 convolution commute, so the smaller map is convolved.
        shortcut = x if self.conv1x1 is None else self.conv1x1(x)
        shortcut = F.interpolate(shortcut, scale_factor=2, mode="nearest")
        y = F.leaky_relu(self.norm1(x), 0.2)
        if self.light:
            y = F.interpolate(self.conv1(y), scale_factor=2, mode="nearest")
        else:
            y = self.conv1(F.interpolate(y, scale_factor=2, mode="nearest"))
        y = self.conv2(F.leaky_relu(self.norm2(y), 0.2))
        return (shortcut + y) / math.sqrt(2)


class Ifqa(nn.Module):
    """The discriminator: face -> realness map. Attribute names follow the official checkpoint."""

    def __init__(self, spec: IfqaSpec = SLIM) -> None:
        super().__init__()
        self.spec = spec
        side = INPUT_SIDE // spec.unshuffle
        if spec.unshuffle > 1:
            self.stem = _BlockStem(spec.unshuffle, spec.widths[0], spec.stem_kernel, spec.sizes)
        self._encoders: list[str] = []
        self._decoders: list[str] = []
        for wide, wider in pairwise(spec.widths):
            side //= 2
            self._encoders.append(f"encoder{side}")
            self.add_module(self._encoders[-1], _ResBlock(wide, wider, spec.norm, down=True))
        self.btn = nn.Sequential(
            *(_ResBlock(spec.widths[-1], spec.widths[-1], spec.norm) for _ in range(spec.bottleneck))
        )
        backwards = spec.widths[::-1]
        for wider, wide in pairwise(backwards):
            side *= 2
            self._decoders.append(f"decoder{side}")
            last = side * spec.unshuffle == INPUT_SIDE
            up = _UpBlock(wider, 1 if last and not spec.light_decoder else wide, spec.norm, spec.light_decoder)
            # The official checkpoint numbers its last decoder as the first element of a sequence.
            self.add_module(self._decoders[-1], nn.Sequential(up) if last and not spec.light_decoder else up)
        if spec.light_decoder:
            self.head = nn.Conv2d(spec.widths[0], 1, 1)

    def encode(self, face: Tensor) -> list[Tensor]:
        """Stem and encoder activations, fine to coarse; training also uses them for the generator's feature loss."""
        levels = [self.stem(face) if self.spec.unshuffle > 1 else face]
        for name in self._encoders:
            levels.append(getattr(self, name)(levels[-1]))
        return levels

    def decode(self, levels: list[Tensor]) -> Tensor:
        """Realness logits [N, 1, S, S]; S is 256 for the official shape, 256 / unshuffle for a light one."""
        x = self.btn(levels[-1])
        skips = levels[-2::-1]
        for i, name in enumerate(self._decoders):
            x = getattr(self, name)(x)
            if i < len(self._decoders) - 1 or self.spec.light_decoder:
                x = x * skips[i] + skips[i]
        return self.head(F.leaky_relu(x, 0.2)) if self.spec.light_decoder else x

    def forward(self, face: Tensor) -> Tensor:
        """face [N, 3, 256, 256] in -1..1 -> realness logits [N, 1, S, S] (sigmoid of logits / temperature: the map)."""
        return self.decode(self.encode(face))


def is_ifqa(keys: Iterable[str]) -> bool:
    """Whether a discriminator's tensors are those of the official IFQA."""
    return {"encoder128.conv1.weight", "btn.0.conv1.weight", "decoder256.0.conv1.weight"} <= set(keys)


def face_ellipse(side: int, ellipse: tuple[float, float, float, float] = FACE_ELLIPSE) -> np.ndarray:
    """[side, side] float32: 1 inside the fixed face ellipse, 0 outside, fractions on its edge."""
    fine = side * 8
    axis = (np.arange(fine, dtype=np.float64) + 0.5) / fine
    cx, cy, rx, ry = ellipse
    inside = ((axis[None, :] - cx) / rx) ** 2 + ((axis[:, None] - cy) / ry) ** 2 <= 1.0
    return inside.reshape(side, 8, side, 8).mean(axis=(1, 3)).astype(np.float32)


class IfqaScorer(nn.Module):
    """The exported module: face -> (score [N] in 0..1, map [N, 256, 256] in 0..1)."""

    pool_weights: Tensor

    def __init__(self, network: Ifqa, pool: str = "ellipse") -> None:
        """`pool` is "ellipse" (mean over the fixed face ellipse, our weights) or "full" (official weights)."""
        super().__init__()
        if pool not in ("ellipse", "full"):
            raise ValueError(f"pool must be 'ellipse' or 'full', not {pool!r}")
        self.network = network
        self.map_side = INPUT_SIDE // network.spec.unshuffle
        weights = (
            face_ellipse(self.map_side) if pool == "ellipse" else np.ones((self.map_side, self.map_side), np.float32)
        )
        self.register_buffer("pool_weights", torch.from_numpy(weights / weights.sum())[None, None], persistent=False)

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        realness = torch.sigmoid(self.network(face) / self.network.spec.temperature)
        score = (realness * self.pool_weights).sum(dim=(1, 2, 3))
        if self.map_side != INPUT_SIDE:
            realness = F.interpolate(realness, size=(INPUT_SIDE, INPUT_SIDE), mode="bilinear", align_corners=False)
        return score, realness[:, 0]
