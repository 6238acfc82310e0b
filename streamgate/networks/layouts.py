"""Output layouts of detectors from several projects: names of the outputs, and the meaning of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from streamgate.frames import Array
from streamgate.networks.priors import STRIDES, decode, priors

Outputs = Mapping[str, Array]
"""Values of one picture by output name, each without the batch axis."""
Shape = tuple[int, int]
"""Height and width of the network's input in pixels, multiples of 32."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The output layout of one kind of detector. P is the number of anchors.

    Attributes:
        outputs: output names, in the order of the published files.
        values: returns the number of values per anchor of an output of shape (P,) or (P, values).
        anchors: returns the number of anchors of an output for an input shape. None: any number is allowed, but it must
            be the same for all outputs and for all pictures of one size.
        scores: returns the probability of a face at each anchor, (P,).
        decode: returns boxes (K, 4) and landmarks (K, 5, 2), in pixels of the input, at K chosen anchors.
    """

    outputs: tuple[str, ...]
    values: Callable[[str], int]
    anchors: Callable[[str, Shape], int | None]
    scores: Callable[[Outputs], Array]
    decode: Callable[[Outputs, Shape, Array], tuple[Array, Array]]


def _levels(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}_{stride}" for name in names for stride in STRIDES)


def _joined(outputs: Outputs, name: str, width: int) -> Array:
    return np.concatenate([outputs[one].reshape(-1, width) for one in _levels(name)])


def _cells(name: str, shape: Shape) -> int:
    stride = int(name.rpartition("_")[2])
    return (shape[0] // stride) * (shape[1] // stride)


@lru_cache(maxsize=16)
def _corners(shape: Shape, each: int) -> tuple[Array, Array]:
    """Left and top of the cell of every anchor (P, 2) in pixels, and its stride (P, 1); read-only."""
    points, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[0 : shape[0] // stride, 0 : shape[1] // stride]
        points.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), each, axis=0) * stride)
        strides.append(np.full((len(points[-1]), 1), stride))
    found = np.concatenate(points).astype(np.float32), np.concatenate(strides).astype(np.float32)
    for array in found:
        array.flags.writeable = False
    return found


def _retinaface(outputs: Outputs, shape: Shape, chosen: Array) -> tuple[Array, Array]:
    return decode(outputs["loc"][chosen], outputs["landm"][chosen], priors(*shape)[chosen])


def _scrfd(outputs: Outputs, shape: Shape, chosen: Array) -> tuple[Array, Array]:
    """Decode SCRFD's outputs: distances from the cell's corner to the box's four sides and to the landmarks, in
    strides; two anchors per cell."""
    corners, strides = (array[chosen] for array in _corners(shape, 2))
    sides = _joined(outputs, "bbox", 4)[chosen] * strides
    points = _joined(outputs, "kps", 10)[chosen].reshape(-1, 5, 2) * strides[:, None]
    return np.concatenate([corners - sides[:, :2], corners + sides[:, 2:]], axis=1), corners[:, None] + points


def _yunet(outputs: Outputs, shape: Shape, chosen: Array) -> tuple[Array, Array]:
    """Decode YuNet's outputs: offset of the box's centre and logarithm of its sides, in strides; one anchor per cell.
    """
    corners, strides = (array[chosen] for array in _corners(shape, 1))
    box = _joined(outputs, "bbox", 4)[chosen]
    middle, half = corners + box[:, :2] * strides, np.exp(box[:, 2:]) * strides / 2
    points = _joined(outputs, "kps", 10)[chosen].reshape(-1, 5, 2) * strides[:, None]
    return np.concatenate([middle - half, middle + half], axis=1), corners[:, None] + points


def _yunet_scores(outputs: Outputs) -> Array:
    product = _joined(outputs, "cls", 1)[:, 0] * _joined(outputs, "obj", 1)[:, 0]
    return np.asarray(np.sqrt(np.clip(product, 0.0, 1.0)))


_WIDTHS = {"loc": 4, "conf": 1, "landm": 10, "bbox": 4, "kps": 10, "scores": 1, "boxes": 4, "landmarks": 10}

LAYOUTS: Mapping[str, Layout] = {
    "retinaface": Layout(
        ("loc", "conf", "landm"), _WIDTHS.__getitem__,
        lambda name, shape: len(priors(*shape)), lambda outputs: outputs["conf"], _retinaface,
    ),
    "scrfd": Layout(
        _levels("score", "bbox", "kps"), lambda name: _WIDTHS.get(name.partition("_")[0], 1),
        lambda name, shape: 2 * _cells(name, shape), lambda outputs: _joined(outputs, "score", 1)[:, 0], _scrfd,
    ),
    "yunet": Layout(
        _levels("cls", "obj", "bbox", "kps"), lambda name: _WIDTHS.get(name.partition("_")[0], 1),
        _cells, _yunet_scores, _yunet,
    ),
    "boxes": Layout(
        ("scores", "boxes", "landmarks"), _WIDTHS.__getitem__, lambda name, shape: None,
        lambda outputs: outputs["scores"].reshape(-1),
        lambda outputs, shape, chosen: (outputs["boxes"][chosen], outputs["landmarks"][chosen].reshape(-1, 5, 2)),
    ),
}  # fmt: skip
"""Layouts by their name on a card: RetinaFace (used by the embedded detector), InsightFace's SCRFD, YuNet, and outputs
that are already in pixels: boxes as left, top, right, bottom, and landmarks."""
