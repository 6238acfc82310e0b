"""InsightFace's iresnet in torch, with the keys of its public `backbone.pth` files.

This module is imported only when a file is converted.

Deng et al., ArcFace, CVPR 2019 (arXiv 1801.07698); the layout is that of
`recognition/arcface_torch/backbones/iresnet.py`. As in `convert.mobilefacenet`, the graph takes `face`, uint8
(N, 112, 112, 3) RGB, and returns `embedding` (N, 512), not normalised, `spread` (N,), and `features` (N, 25088), the
input of the last affine layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from streamgate.convert.blocks import Residual, conv_norm, fold, named
from streamgate.convert.mobilefacenet import RecognizerGraph

DEPTHS: Mapping[tuple[int, int, int, int], int] = {
    (2, 2, 2, 2): 18,
    (3, 4, 6, 3): 34,
    (3, 4, 14, 3): 50,
    (3, 13, 30, 3): 100,
    (6, 26, 60, 6): 200,
}
"""The number in a network's name, by the numbers of blocks in its four stages."""

EMBEDDING = 512
_WIDTHS = (64, 128, 256, 512)
_MAP_SIDE = 7
_LEVELS = 127.5
"""The networks were trained on (RGB - 127.5) / 127.5."""


def iresnet(blocks: Iterable[int]) -> nn.Sequential:
    """From a normalised face (N, 3, 112, 112) to the embedding; the last two layers are affine with 25,088 inputs."""
    inputs = 64
    network = named(conv1=nn.Conv2d(3, inputs, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(inputs),
                    prelu=nn.PReLU(inputs))  # fmt: skip
    for number, (width, count) in enumerate(zip(_WIDTHS, blocks, strict=True), 1):
        stage = [_block(inputs, width, 2), *(_block(width, width, 1) for _ in range(count - 1))]
        network.add_module(f"layer{number}", nn.Sequential(*stage))
        inputs = width
    network.add_module("bn2", nn.BatchNorm2d(inputs))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(inputs * _MAP_SIDE**2, EMBEDDING))
    network.add_module("features", nn.BatchNorm1d(EMBEDDING))
    return network


def _block(inputs: int, outputs: int, stride: int) -> Residual:
    """A residual block: batch norm, 3x3 convolution, batch norm, PReLU, strided 3x3 convolution, batch norm."""
    layers = {
        "bn1": nn.BatchNorm2d(inputs),
        "conv1": nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        "bn2": nn.BatchNorm2d(outputs),
        "prelu": nn.PReLU(outputs),
        "conv2": nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
        "bn3": nn.BatchNorm2d(outputs),
    }
    plain = stride == 1 and inputs == outputs
    return Residual(layers, None if plain else nn.Sequential(*conv_norm(inputs, outputs, 1, stride)))


def blocks_of(keys: Iterable[str]) -> tuple[int, int, int, int] | None:
    """The number of blocks in each of the four stages; None if the keys do not belong to an iresnet."""
    counts = [0, 0, 0, 0]
    names = set(keys)
    if not {"conv1.weight", "prelu.weight", "fc.weight", "features.running_mean"} <= names:
        return None
    for name in names:
        found = re.fullmatch(r"layer([1-4])\.(\d{1,3})\.prelu\.weight", name)
        if found:
            stage = int(found.group(1)) - 1
            counts[stage] = max(counts[stage], int(found.group(2)) + 1)
    return counts[0], counts[1], counts[2], counts[3]


def graph(state: Mapping[str, Tensor], drop_rate: float) -> RecognizerGraph:
    """The graph of a checkpoint's state dict. Raises RuntimeError or KeyError if it has another layout."""
    blocks = blocks_of(state)
    if blocks is None or blocks not in DEPTHS:
        raise KeyError("not an iresnet of 18, 34, 50, 100 or 200 layers")
    network = iresnet(blocks)
    network.load_state_dict(dict(state))
    network.eval()
    *_, layer, norm = network
    assert isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d)
    return RecognizerGraph(network[:-2], *fold(layer, norm), drop_rate, [_LEVELS] * 3, [_LEVELS] * 3).eval()
