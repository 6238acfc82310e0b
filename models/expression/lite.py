"""The first blocks of EfficientNet-Lite0 with ImageNet's weights, for the head `real`.

ImageNet contains photographs, drawings, statues and toys of all kinds, whereas the expression network's own trunk was
trained on faces only.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_SIZE = (112, 96)
"""Height and width to which crops are reduced, to save time."""
_STAGES = ((1, 16, 3, 1, 1), (2, 24, 3, 2, 6), (2, 40, 5, 2, 6), (3, 80, 3, 2, 6), (3, 112, 5, 1, 6), (4, 192, 5, 2, 6))
"""For each stage: number of blocks, output channels, side of the kernel, stride of the first block, and factor by which
the channels are widened inside a block."""
_READ = (4, 7, 10, 12, 14)
"""Indices of the blocks whose maps are described by statistics. The maps (channels x height x width) are 40 x 14 x 12,
80 x 7 x 6, 112 x 7 x 6 and twice 192 x 4 x 3."""
LITE_FIGURES = 3 * (40 + 80 + 112 + 192 + 192)
"""Number of these statistics: three for each channel."""
_BATCH_EPSILON = 1e-3


class _Block(nn.Module):
    """A depthwise convolution between two 1x1 convolutions; batch normalisation is folded into the convolutions."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int, widening: int) -> None:
        super().__init__()
        middle = inputs * widening
        self.widen = nn.Conv2d(inputs, middle, 1) if widening > 1 else nn.Identity()
        self.filter = nn.Conv2d(middle, middle, side, stride, side // 2, groups=middle)
        self.narrow = nn.Conv2d(middle, outputs, 1)
        self.shortcut = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        relu = nn.functional.relu6
        wide = x if isinstance(self.widen, nn.Identity) else relu(self.widen(x))
        y: Tensor = self.narrow(relu(self.filter(wide)))
        return x + y if self.shortcut else y


class LiteTrunk(nn.Module):
    """Statistics of EfficientNet-Lite0's maps, float32 (N, LITE_FIGURES, 1, 1), from normalised planes of crops
    (N, 3, 144, 128).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        blocks, inputs = [], 32
        for count, outputs, side, stride, widening in _STAGES:
            for number in range(count):
                blocks.append(_Block(inputs, outputs, side, stride if number == 0 else 1, widening))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks[: _READ[-1] + 1])

    def forward(self, planes: Tensor) -> Tensor:
        maps = nn.functional.interpolate(planes, _SIZE, mode="bilinear", align_corners=False)
        maps = nn.functional.relu6(self.stem(maps))
        found = []
        for number, block in enumerate(self.blocks):
            maps = block(maps)
            if number in _READ:
                found.append(_three(maps))
        return torch.cat(found, dim=1)

    def take_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of EfficientNet-Lite0 under the names of its PyTorch port (`_conv_stem.weight`, ...).

        Raises KeyError or RuntimeError for the weights of another network.
        """
        _fold(self.stem, state, "_conv_stem", "_bn0")
        # The weights expect (byte - 127) / 128, but `normalise` returns (byte - 127.5) / 64.
        with torch.no_grad():
            self.stem.bias += self.stem.weight.sum(dim=(1, 2, 3)) * (0.5 / 128.0)
            self.stem.weight *= 0.5
        for number, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            at = f"_blocks.{number}."
            if not isinstance(block.widen, nn.Identity):
                _fold(block.widen, state, f"{at}_expand_conv", f"{at}_bn0")
            _fold(block.filter, state, f"{at}_depthwise_conv", f"{at}_bn1")
            _fold(block.narrow, state, f"{at}_project_conv", f"{at}_bn2")


def _three(maps: Tensor) -> Tensor:
    """Mean, standard deviation and maximum of each map (N, C, H, W), as (N, 3 C, 1, 1)."""
    pool = nn.functional.adaptive_avg_pool2d
    mean = pool(maps, 1)
    variance = (pool(maps * maps, 1) - mean * mean).clamp_min(1e-6)
    return torch.cat([mean, variance.sqrt(), nn.functional.adaptive_max_pool2d(maps, 1)], dim=1)


def _fold(convolution: nn.Module, state: Mapping[str, Tensor], name: str, normalised: str) -> None:
    """Set the weights and bias of `convolution` to those of `name`, folded with the batch normalisation after it."""
    parts = [state[f"{normalised}.{part}"].float() for part in ("weight", "bias", "running_mean", "running_var")]
    gain = parts[0] / torch.sqrt(parts[3] + _BATCH_EPSILON)
    weight = state[f"{name}.weight"].float() * gain.view(-1, 1, 1, 1)
    convolution.load_state_dict({"weight": weight, "bias": parts[1] - parts[2] * gain})
