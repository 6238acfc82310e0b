"""InsightFace's MobileFaceNet in torch, with the keys of its public checkpoints.

This module is imported only when a file is converted.

Chen et al. 2018 (arXiv 1804.07573); the layout is that of `recognition/arcface_torch/backbones/mobilefacenet.py`, with
any number of blocks and any width. As in `convert.mobilefacenet`, the graph takes `face`, uint8
(N, 112, 112, 3) RGB, and returns `embedding` (N, D), not normalised, `spread` (N,), and `features` (N, 512), the input
of the last affine layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from streamgate.convert.blocks import Residual, conv_norm, fold, named
from streamgate.convert.mobilefacenet import RecognizerGraph

_FEATURES = 512
_LEVELS = 127.5
"""The networks were trained on (RGB - 127.5) / 127.5."""


def _layers(*parts: nn.Module) -> nn.Sequential:
    """A module whose parts are named `layers.0`, `layers.1` ..., as in the checkpoints."""
    return named(layers=nn.Sequential(*parts))


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return _layers(*conv_norm(inputs, outputs, kernel, stride, groups), nn.PReLU(outputs))


def _depthwise(inputs: int, outputs: int, inner: int, stride: int) -> nn.Sequential:
    return _layers(
        _unit(inputs, inner, 1),
        _unit(inner, inner, 3, stride, groups=inner),
        _layers(*conv_norm(inner, outputs, 1)),
    )


def _residual(channels: int, count: int, inner: int) -> nn.Sequential:
    blocks = (_depthwise(channels, channels, inner, 1) for _ in range(count))
    return _layers(*(Residual(dict(block.named_children())) for block in blocks))


def mobilefacenet(blocks: tuple[int, int, int, int], scale: int, embedding: int) -> nn.Sequential:
    """The network from a normalised face (N, 3, 112, 112) to the embedding.

    Args:
        blocks: number of blocks in the four stages.
        scale: number of channels of the first stage, divided by 64.
        embedding: length of the embedding.
    """
    first, second, third, fourth = blocks
    narrow, wide = 64 * scale, 128 * scale
    return named(
        layers=nn.Sequential(
            _unit(3, narrow, 3, 2),
            _unit(narrow, narrow, 3, 1, groups=64) if first == 1 else _residual(narrow, first, 128),
            _depthwise(narrow, narrow, 128, 2),
            _residual(narrow, second, 128),
            _depthwise(narrow, wide, 256, 2),
            _residual(wide, third, 256),
            _depthwise(wide, wide, 512, 2),
            _residual(wide, fourth, 256),
        ),
        conv_sep=_unit(wide, _FEATURES, 1),
        features=_layers(
            _layers(*conv_norm(_FEATURES, _FEATURES, 7, groups=_FEATURES, padding=0)),
            nn.Flatten(),
            nn.Linear(_FEATURES, embedding, bias=False),
            nn.BatchNorm1d(embedding),
        ),
    )


def is_mobilefacenet(keys: Iterable[str]) -> bool:
    """Whether the keys are the tensor names of an InsightFace MobileFaceNet."""
    return {"layers.0.layers.0.weight", "conv_sep.layers.0.weight", "features.layers.2.weight"} <= set(keys)


def graph(state: Mapping[str, Tensor], drop_rate: float) -> RecognizerGraph:
    """The graph of a checkpoint's state dict. Raises RuntimeError or KeyError if it has another layout."""
    plain = "layers.1.layers.1.running_var" in state
    blocks = (1 if plain else _count(state, 1), _count(state, 3), _count(state, 5), _count(state, 7))
    scale, embedding = len(state["layers.0.layers.0.weight"]) // 64, len(state["features.layers.2.weight"])
    if scale not in range(1, 9) or max(blocks) > 64 or embedding > 2048:
        raise KeyError("not an InsightFace MobileFaceNet")
    network = mobilefacenet(blocks, scale, embedding)
    network.load_state_dict(dict(state))
    network.eval()
    layers, conv_sep, features = network
    *pooling, layer, norm = features.get_submodule("layers").children()
    assert isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d)
    backbone = nn.Sequential(layers, conv_sep, *pooling)
    return RecognizerGraph(backbone, *fold(layer, norm), drop_rate, [_LEVELS] * 3, [_LEVELS] * 3).eval()


def _count(keys: Iterable[str], index: int) -> int:
    found = [re.match(rf"layers\.{index}\.layers\.(\d{{1,2}})\.", key) for key in keys]
    return 1 + max((int(match.group(1)) for match in found if match), default=-1)
