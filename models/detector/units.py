"""RetinaFace split into units that can be trained in parallel: convolutions of the body, laterals, merges, contexts and
heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamgate.convert.retinaface import MEAN_RGB, ContextModule, RetinaFace, by_prior

Relay = Callable[[str, Tensor], Tensor]
"""Maps a unit's name and its output to the input of the units after it."""

BODY = 14
"""Blocks of the MobileNet body: six to stride 8, six to stride 16, two to stride 32."""
_ENDS = (5, 11, 13)
MAPS = (
    "body0", *(f"body{i}{half}" for i in range(1, BODY) for half in ("a", "b")), "lateral1", "lateral2", "lateral3",
    "merge2", "merge1", "context1", "context2", "context3",
)  # fmt: skip
"""Names of the units, each after the units that it depends on. A block of the body has two units: its depthwise and its
1x1 convolution."""

Heads = tuple[Tensor, Tensor, Tensor]
"""loc (N, P, 4), logits (N, P, 2), landmarks (N, P, 10)."""


def new_network() -> RetinaFace:
    """A network with random weights."""
    return RetinaFace("mobilenet025")


def normalise(image: Tensor) -> Tensor:
    """The network's input from uint8 (N, H, W, 3) RGB, computed as in `DetectorGraph`."""
    mean = torch.tensor(MEAN_RGB, device=image.device)
    return (image.float() - mean).permute(0, 3, 1, 2)


def blocks(network: RetinaFace) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every unit before the heads."""
    body, fpn = network.body, network.fpn
    first, *rest = [*body.stage1, *body.stage2, *body.stage3]
    halves = [half for block in rest for half in (block[:3], block[3:])]
    modules = [first, *halves, fpn.output1, fpn.output2, fpn.output3, fpn.merge2, fpn.merge1]
    yield from zip(MAPS, [*modules, network.ssh1, network.ssh2, network.ssh3], strict=True)


def run(network: RetinaFace, planes: Tensor, relay: Relay) -> tuple[dict[str, Tensor], Heads]:
    """The outputs of every unit and of the heads; with `same` as relay, the outputs of the network itself."""
    modules, made = dict(blocks(network)), {}

    def unit(name: str, x: Tensor) -> Tensor:
        made[name] = modules[name](x.contiguous(memory_format=torch.channels_last))
        return relay(name, made[name])

    x, levels = planes, []
    for i in range(BODY):
        x = unit(f"body{i}a", x) if i else x
        x = unit(f"body{i}b" if i else "body0", x)
        if i in _ENDS:
            levels.append(unit(f"lateral{len(levels) + 1}", x))
    fine, middle, coarse = levels
    middle = unit("merge2", middle + F.interpolate(coarse, scale_factor=2.0, mode="nearest"))
    fine = unit("merge1", fine + F.interpolate(middle, scale_factor=2.0, mode="nearest"))
    context = [unit(f"context{i + 1}", level) for i, level in enumerate((fine, middle, coarse))]
    loc, logits = by_prior(network.BboxHead, context), by_prior(network.ClassHead, context)
    return made, (loc, logits, by_prior(network.LandmarkHead, context))


def same(_: str, output: Tensor) -> Tensor:
    """The relay of a network that runs as a whole."""
    return output


@torch.no_grad()
def set_scales(network: RetinaFace, maps: dict[str, Tensor]) -> None:
    """Start each unit's last batch norms at the mean and standard deviation of the map that the unit should produce.

    These are statistics of the teacher's maps; none of the teacher's weights are used. Without the statistics, the
    first hundreds of steps would only adjust the scale of each channel.
    """
    for name, module in blocks(network):
        out = maps[name].float()
        flat = torch.where(out < 0, out * 10, out)  # undo the leaky ReLU of slope 0.1
        if isinstance(module, ContextModule):
            last = [module.conv3X3[-1], module.conv5X5_2[-1], module.conv7x7_3[-1]]
        else:
            last = [list(norms(module))[-1]]
        sizes = [norm.num_features for norm in last]
        for norm, part in zip(last, flat.split(sizes, dim=1), strict=True):
            norm.weight.copy_(part.std(dim=(0, 2, 3)) + 1e-3)
            norm.bias.copy_(part.mean(dim=(0, 2, 3)))


@torch.no_grad()
def set_heads(network: RetinaFace, teacher: RetinaFace, maps: dict[str, Tensor]) -> None:
    """Do the same for the heads, with the mean and standard deviation of the outputs for the teacher's context maps."""
    for kind in ("BboxHead", "ClassHead", "LandmarkHead"):
        for level, (mine, theirs) in enumerate(zip(getattr(network, kind), getattr(teacher, kind), strict=True)):
            own, wanted = (head.conv1x1(maps[f"context{level + 1}"]).float() for head in (mine, theirs))
            gain = wanted.std(dim=(0, 2, 3)) / (own.std(dim=(0, 2, 3)) + 1e-6)
            mine.conv1x1.weight.mul_(gain[:, None, None, None])
            own = (own - mine.conv1x1.bias[:, None, None]) * gain[:, None, None]
            mine.conv1x1.bias.copy_(wanted.mean(dim=(0, 2, 3)) - own.mean(dim=(0, 2, 3)))


def norms(module: nn.Module) -> Iterator[nn.BatchNorm2d]:
    """Every batch norm inside a module."""
    yield from (inner for inner in module.modules() if isinstance(inner, nn.BatchNorm2d))
