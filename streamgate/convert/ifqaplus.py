"""IFQA++, the masked autoencoder behind IFQA's second checkpoint (AIM-SKKU, 2023): per-patch realness by a ViT.

The layout is that of MAE (He et al., CVPR 2022): an encoder of 32 blocks of width 1280 and a decoder of 8 blocks of
width 512 at 224 pixels with patches of 14 (ViT-H/14; 656,873,412 values in 494 tensors, checkpoint key "D"). The last
layer has one output per pixel instead of three. Nothing is masked at inference, so the published code's random
shuffling of patches, which it later undoes, has no effect and is left out. The published network ends in a sigmoid, so
the published script's clipping of negative values has no effect either. The score is the mean of the map.

This module needs torch and is imported only when a file is converted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isqrt

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamgate.convert.blocks import named

CROP_SIDE = 256
"""Side in pixels of the crop that all IFQA networks take, and of the map that they return."""
HEADS = 16
"""Number of attention heads in encoder and decoder; it cannot be derived from the tensors' shapes."""
_LARGEST = 1 << 30
_MAX_PATCHES = 1024


@dataclass(frozen=True)
class VitSpec:
    """Sizes of the network: input `side` and `patch` in pixels, token widths and numbers of blocks."""

    side: int
    patch: int
    width: int
    depth: int
    decoder_width: int
    decoder_depth: int


OFFICIAL = VitSpec(224, 14, 1280, 32, 512, 8)


class _Block(nn.Module):
    """A transformer block: attention and an MLP, each after a layer norm and with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = named(fc1=nn.Linear(width, 4 * width), gelu=nn.GELU(), fc2=nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        joined = self.attn["qkv"](self.norm1(x)).reshape(count, tokens, 3, HEADS, width // HEADS)
        q, k, v = joined.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax((q * (width // HEADS) ** -0.5) @ k.transpose(-2, -1), dim=-1)
        x = x + self.attn["proj"]((weights @ v).transpose(1, 2).reshape(count, tokens, width))
        return x + self.mlp(self.norm2(x))


class IfqaPlus(nn.Module):
    """`face` (N, 3, 256, 256) in -1..1 -> score (N,) and map (N, 256, 256), both 0..1.

    Attribute names follow the official checkpoint.
    """

    cubic: Tensor

    def __init__(self, spec: VitSpec = OFFICIAL) -> None:
        super().__init__()
        self.spec = spec
        positions = (spec.side // spec.patch) ** 2 + 1
        self.patch_embed = named(proj=nn.Conv2d(3, spec.width, spec.patch, spec.patch))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, spec.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, spec.width))
        self.blocks = nn.ModuleList(_Block(spec.width) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.width, eps=1e-6)
        self.decoder_embed = nn.Linear(spec.width, spec.decoder_width)
        # The token for masked patches; it is unused, but part of the checkpoint.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, spec.decoder_width))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, positions, spec.decoder_width))
        self.decoder_blocks = nn.ModuleList(_Block(spec.decoder_width) for _ in range(spec.decoder_depth))
        self.decoder_norm = nn.LayerNorm(spec.decoder_width, eps=1e-6)
        self.decoder_pred = nn.Linear(spec.decoder_width, spec.patch**2)
        # OpenCV's bicubic weights, as in the published script: row i has the weights for row i of the scaled picture.
        # `from_numpy` keeps the values even on the meta device, on which all other tensors are created without memory.
        weights = cv2.resize(np.eye(CROP_SIDE, dtype=np.float32), (CROP_SIDE, spec.side), interpolation=cv2.INTER_CUBIC)
        self.register_buffer("cubic", torch.from_numpy(weights), persistent=False)

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        realness = self.realness(torch.matmul(torch.matmul(self.cubic, face), self.cubic.t()))
        larger = F.interpolate(realness[:, None], size=(CROP_SIDE, CROP_SIDE), mode="bilinear", align_corners=False)
        return realness.mean(dim=(1, 2)), larger[:, 0]

    def realness(self, face: Tensor) -> Tensor:
        """The published network: from a face (N, 3, S, S) of its own size to its realness map (N, S, S), 0..1."""
        patches = self.patch_embed(face).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(face.shape[0], -1, -1)
        x = torch.cat([first, patches], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x)) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        values = torch.sigmoid(self.decoder_pred(self.decoder_norm(x))[:, 1:])
        cells, patch = self.spec.side // self.spec.patch, self.spec.patch
        rows = values.reshape(-1, cells, cells, patch, patch).permute(0, 1, 3, 2, 4)
        return rows.reshape(-1, self.spec.side, self.spec.side)


def is_ifqaplus(keys: Iterable[str]) -> bool:
    """Whether a discriminator's tensors are those of IFQA++, as opposed to IFQA."""
    return {"patch_embed.proj.weight", "decoder_pos_embed", "decoder_pred.weight"} <= set(keys)


def spec_of(state: Mapping[str, Tensor]) -> VitSpec:
    """The sizes of a checkpoint, derived from its tensors.

    Raises:
        KeyError: a tensor is missing or has a shape that is impossible for this network.
    """
    width, channels, patch, _ = _shape(state, "patch_embed.proj.weight", 4)
    positions = _shape(state, "pos_embed", 3)[1]
    decoder_width = _shape(state, "decoder_embed.weight", 2)[0]
    cells = isqrt(max(0, positions - 1))
    spec = VitSpec(
        cells * patch, patch, width, _blocks(state, "blocks"), decoder_width, _blocks(state, "decoder_blocks")
    )
    total = sum(tensor.numel() for tensor in state.values())
    if channels != 3 or cells**2 != positions - 1 or not 0 < cells**2 <= _MAX_PATCHES or total > _LARGEST:
        raise KeyError(f"not IFQA++: {positions} positions of width {width}, {total} values in total")
    if width % HEADS or decoder_width % HEADS or spec.side > 2 * CROP_SIDE:
        raise KeyError(f"not IFQA++: widths {width} and {decoder_width}, input of {spec.side} pixels")
    return spec


def scorer(state: Mapping[str, Tensor]) -> IfqaPlus:
    """The graph of a checkpoint's discriminator; its tensors are used as they are, not copied.

    Raises RuntimeError or KeyError if the checkpoint has another layout.
    """
    spec = spec_of(state)
    with torch.device("meta"):
        network = IfqaPlus(spec)
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return network.requires_grad_(False).eval()


def _shape(state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    shape = tuple(state[name].shape)
    if len(shape) != axes:
        raise KeyError(f"{name} has shape {shape}")
    return shape


def _blocks(state: Mapping[str, Tensor], name: str) -> int:
    found = [re.fullmatch(rf"{name}\.(\d{{1,3}})\.norm1\.weight", key) for key in state]
    return 1 + max((int(match.group(1)) for match in found if match), default=-1)
