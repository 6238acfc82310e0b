"""The standard detector as teacher: the output of each of its units, and its heads."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.common.images import DataError
from models.detector.units import Heads, run, same
from streamgate.convert.checkpoints import load_state
from streamgate.convert.retinaface import RetinaFace, mobilenet025
from streamgate.errors import WeightsError
from streamgate.weights.catalog import load_catalog
from streamgate.weights.files import sha256_of
from streamgate.weights.store import models_folder

NAME = "retinaface-mnet025-foamliu"


class Teacher:
    """The teacher in eval mode, without gradients; batch norms are folded into convolutions to save time."""

    def __init__(self, network: RetinaFace, device: torch.device) -> None:
        fold(network)
        self.network = network.to(device, memory_format=torch.channels_last).requires_grad_(False)

    @torch.no_grad()
    def look(self, planes: Tensor) -> tuple[dict[str, Tensor], Heads]:
        """The maps by name of the unit, and the heads, for normalised planes (N, 3, H, W)."""
        return run(self.network, planes, same)


def load_teacher(path: Path | None) -> RetinaFace:
    """The teacher from its checkpoint (default: the file that `streamgate models pull` stores), for RGB input."""
    source = next(entry for entry in load_catalog() if entry.name == NAME).source[0]
    path = path or models_folder() / "downloads" / source.file
    if not path.is_file():
        raise DataError(f"{path}: the teacher is missing; run `streamgate models pull` or give --teacher FILE")
    if sha256_of(path) != source.sha256:
        raise DataError(f"{path}: is not the teacher that the catalog names ({source.file})")
    try:
        return mobilenet025(load_state(path)).network
    except WeightsError as error:
        raise DataError(str(error)) from error


def fold(network: nn.Module) -> None:
    """Fold every eval-mode batch norm into the convolution before it, in place."""
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for i in range(len(module) - 1):
                first, second = module[i], module[i + 1]
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    module[i], module[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
