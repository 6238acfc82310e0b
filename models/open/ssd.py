"""The detector of `--models open`: Open Model Zoo's face-detection-adas-0001, with a head that adds landmarks.

The published network is an SSD (Liu et al. 2016) with a MobileNet backbone. Its feature maps have several strides, and
each of their cells has several anchors. The network returns a score and a box for each anchor, but no landmarks. Its
weights are not changed. GROUPS lists the anchors by the range of their sizes. In each cell, only the anchor with the
highest score is used from each group, because the others nearly always show the same face. The head is a small network
that computes the landmarks from the part of the picture around a box. So that the outputs have the same shape for all
pictures of one size, the head sees a fixed number of boxes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.common.layers import unit
from models.common.openvino_graph import IRNetwork

SHA256 = "df0f5799d801c6afb355d1c4771693c782efbb58d2eb2238982eac8fe84bc821"
"""The sha256 of the published `.bin` (FP16)."""
CENTRE, LOG_SIDE = 0.1, 0.2
"""The network's values are multiplied by these factors. The results are the shift of the box's centre from the anchor's
centre, as a share of the anchor's sides, and the logarithm of the ratio of the box's sides to the anchor's."""
VALUES = 10
"""Number of the head's values for a box: the positions of the landmarks (x, y) relative to the centre of the box, as
shares of the part's side, divided by SCALE."""
PART, AROUND = 32, 1.3
"""Side in pixels of the part of the picture that the head sees, and the same side relative to the box's longer side."""
SCALE = 0.1


class Group(NamedTuple):
    """The anchors of one range of sizes; lengths in pixels of the picture that the network sees."""

    output: str
    """Common beginning of the names of the two layers that compute the boxes and the scores."""
    step: float
    """Distance between the centres of neighbouring anchors."""
    low: float
    high: float
    """Sides of the square anchors: `low`, and the square root of `low` x `high`."""
    ratios: tuple[float, ...]
    """Aspect ratios of the other anchors, all of which have the area of the smaller square."""
    halvings: int
    """How many times the picture is scaled down by 2 before the network sees it."""
    shrink: int
    """Factor by which the picture is scaled down before the head sees parts of it. Without this, the head would see
    only some of the pixels of a large face."""
    seen: int
    """Maximum number of boxes that the head sees: those with the highest scores. The others keep average landmarks."""


GROUPS = (
    Group("conv4_3_0_norm_mbox", 16.0, 16.0, 38.4, (2.0,), 0, 1, 32),
    Group("conv4_3_norm_mbox", 16.0, 38.4, 76.8, (2.0,), 0, 2, 24),
    Group("fc7_mbox", 32.0, 76.8, 142.08, (2.0, 3.0), 0, 4, 8),
    Group("conv6_2_mbox", 64.0, 142.08, 207.36, (2.0, 3.0), 0, 4, 6),
    Group("conv7_2_mbox", 100.0, 207.36, 272.64, (2.0, 3.0), 0, 8, 4),
    Group("conv6_2_mbox", 64.0, 142.08, 207.36, (2.0, 3.0), 1, 8, 4),
    Group("conv7_2_mbox", 100.0, 207.36, 272.64, (2.0, 3.0), 1, 16, 4),
    Group("conv6_2_mbox", 64.0, 142.08, 207.36, (2.0, 3.0), 2, 16, 2),
    Group("conv7_2_mbox", 100.0, 207.36, 272.64, (2.0, 3.0), 2, 32, 2),
)
"""The published network has two more groups, with anchors from 273 px. They are not used: in pictures of other sizes
than the published one (672 x 384), they often find a face that is as large as the whole picture. Instead, the network
also sees smaller copies of the picture."""
_HALVINGS = max(group.halvings for group in GROUPS)


class Found(NamedTuple):
    """The published network's result for one group: in each of P cells, the anchor with the highest score."""

    scores: Tensor
    """(N, P), 0..1."""
    boxes: Tensor
    """(N, P, 4): centre, width and height in pixels of the whole picture."""
    best: Tensor
    """(N, P): the score if no neighbouring cell has a higher one, otherwise 0."""


class Published(nn.Module):
    """The published network. Maps pictures uint8 (N, H, W, 3) RGB to a result for each group."""

    def __init__(self, binary: Path) -> None:
        """Raises DataError if the file is not the published one."""
        super().__init__()
        self._outputs = list(dict.fromkeys(group.output for group in GROUPS))
        layers = [name + kind for name in self._outputs for kind in ("_loc", "_conf_64")]
        self.network = IRNetwork(binary, SHA256, layers)
        for number, group in enumerate(GROUPS):
            self.register_buffer(f"anchors_{number}", _anchors(group), persistent=False)

    def forward(self, face: Tensor) -> list[Found]:
        planes = face.permute(0, 3, 1, 2).to(torch.float32).flip(1)  # the network takes BGR
        values = []
        for halvings in range(_HALVINGS + 1):
            values.append(self.network(functional.avg_pool2d(planes, 2**halvings) if halvings else planes))
        found = []
        for number, group in enumerate(GROUPS):
            first = 2 * self._outputs.index(group.output)
            found.append(self._found(number, *values[group.halvings][first : first + 2]))
        return found

    def _found(self, number: int, moves: Tensor, classes: Tensor) -> Found:
        """The result for a group: of each cell, the anchor with the highest score."""
        anchors, group = getattr(self, f"anchors_{number}"), GROUPS[number]
        count, height, width = len(anchors), *moves.shape[2:]
        odds = _cells(classes, count, 2)
        scores, best = torch.sigmoid(odds[..., 1] - odds[..., 0]).max(2, keepdim=True)
        moved = _cells(moves, count, 4).gather(2, best.unsqueeze(3).expand(-1, -1, 1, 4)).squeeze(2)
        sides = anchors[best.squeeze(2)]
        down, across = torch.arange(height) + 0.5, torch.arange(width) + 0.5
        # Sums instead of `expand`, because the exported graph has to work with maps of any size.
        centres = torch.stack([across + 0 * down[:, None], down[:, None] + 0 * across], 2) * group.step
        middle = centres.reshape(1, -1, 2) + moved[..., :2] * CENTRE * sides
        boxes = torch.cat([middle, torch.exp(moved[..., 2:] * LOG_SIDE) * sides], 2) * 2**group.halvings
        maps = scores.reshape(-1, 1, height, width)
        peaks = torch.where(functional.max_pool2d(maps, 3, 1, 1) > maps, 0.0, maps).flatten(1)
        return Found(scores.squeeze(2), boxes, peaks)


def _anchors(group: Group) -> Tensor:
    """Width and height of the anchors in each cell, in the order of the network's outputs."""
    middle = (group.low * group.high) ** 0.5
    sides = [(group.low, group.low), (middle, middle)]
    for ratio in group.ratios:
        root = ratio**0.5
        sides += [(group.low * root, group.low / root), (group.low / root, group.low * root)]
    return torch.tensor(sides)


def _cells(maps: Tensor, count: int, values: int) -> Tensor:
    """(N, count * values, h, w) -> (N, h * w, count, values)."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, count, values)


class Parts(nn.Module):
    """The parts of a picture that the head sees.

    Maps planes (N, 3, H, W), already scaled down by `shrink`, and boxes (N, K, 4) as centre, width and height, in
    pixels of the picture before it was scaled down, to parts (N * K, 3, PART, PART). Outside the picture, its border
    pixels are repeated.
    """

    def __init__(self) -> None:
        super().__init__()
        places = AROUND * ((torch.arange(PART) + 0.5) / PART - 0.5)
        grid = torch.stack([places.repeat(PART), places.repeat_interleave(PART)], 1)
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, planes: Tensor, boxes: Tensor, shrink: int) -> Tensor:
        sides = boxes[..., None, 2:].amax(3, keepdim=True)
        places = (boxes[..., None, :2] + self.grid * sides) / shrink
        extent = torch.tensor([1.0, 0.0]) * planes.shape[3] + torch.tensor([0.0, 1.0]) * planes.shape[2]
        found = functional.grid_sample(planes, 2 * places / extent - 1, "bilinear", "border", align_corners=False)
        return found.transpose(1, 2).reshape(-1, 3, PART, PART)


def planes(pictures: Tensor) -> Tensor:
    """Pictures uint8 (N, H, W, 3) as the head's input (N, 3, H, W), -1..1."""
    return pictures.permute(0, 3, 1, 2).to(torch.float32) * (1 / 127.5) - 1.0


def shrunk(pictures: Tensor) -> dict[int, Tensor]:
    """The planes of pictures uint8 (N, H, W, 3), scaled down by each of the factors in GROUPS."""
    whole = planes(pictures)
    factors = sorted({group.shrink for group in GROUPS})
    return {factor: functional.avg_pool2d(whole, factor) if factor > 1 else whole for factor in factors}


def _pair(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(unit(inputs, inputs, stride, groups=inputs), unit(inputs, outputs, side=1))


class PointsHead(nn.Module):
    """The head: parts (K, 3, PART, PART) -> values (K, VALUES), see `landmarks`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            unit(3, 24, 2), _pair(24, 48), _pair(48, 64, 2), _pair(64, 64), _pair(64, 96, 2), _pair(96, 96),
            nn.Flatten(), nn.Linear(96 * (PART // 8) ** 2, 64), nn.ReLU(inplace=True), nn.Linear(64, VALUES),
        )  # fmt: skip
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, parts: Tensor) -> Tensor:
        return self.layers(parts)


class Pixels(nn.Module):
    """The graph that is exported.

    It maps pictures uint8 (N, H, W, 3) RGB, with sides that are multiples of 32, to scores (N, P), boxes (N, P, 4) as
    left, top, right, bottom, and landmarks (N, P, 10), in pixels.

    average: the values (see `landmarks`) for all boxes that the head does not see.
    """

    def __init__(self, published: Published, head: PointsHead, average: Tensor) -> None:
        super().__init__()
        self.published, self.head, self.parts = published, head, Parts()
        self.register_buffer("average", average)

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found, smaller = self.published(face), shrunk(face)
        chosen, peaks, parts = [], [], []
        for group, one in zip(GROUPS, found, strict=True):
            count = torch.clamp(torch.tensor(one.best.shape[1]), max=group.seen)
            best, index = (each.unsqueeze(2) for each in torch.topk(one.best, count, 1))
            chosen.append(index)
            peaks.append(best)
            parts.append(self.parts(smaller[group.shrink], one.boxes.gather(1, index.expand(-1, -1, 4)), group.shrink))
        values = self.head(torch.cat(parts))
        rows, done = [], 0
        for one, index, best, part in zip(found, chosen, peaks, parts, strict=True):
            own = values[done : done + part.shape[0]].reshape(index.shape[0], -1, VALUES)
            # Which of the boxes without a peak are among the chosen ones depends on the runtime.
            own = torch.where(best > 0, own, self.average)
            usual = self.average + 0 * one.boxes[..., :1]
            rows.append(usual.scatter(1, index.expand(-1, -1, VALUES), own))
            done = done + part.shape[0]
        boxes = torch.cat([one.boxes for one in found], 1)
        return torch.cat([one.scores for one in found], 1), corners(boxes), landmarks(boxes, torch.cat(rows, 1))


def corners(boxes: Tensor) -> Tensor:
    """Left, top, right and bottom (..., 4) of boxes given by centre, width and height."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def landmarks(boxes: Tensor, values: Tensor) -> Tensor:
    """Landmarks (..., 10) in pixels, from boxes given by centre, width and height (..., 4), and the head's values."""
    side = SCALE * AROUND * boxes[..., 2:].amax(-1, keepdim=True)
    # The landmarks of a picture refer to the centres of pixels, the boxes to their edges.
    middle = boxes[..., :2] - 0.5
    return torch.cat([middle + values[..., first : first + 2] * side for first in range(0, VALUES, 2)], -1)
