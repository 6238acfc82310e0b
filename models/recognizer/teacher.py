"""A published recognizer as teacher: the output of each of its units, and its embedding."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.common.images import DataError
from models.recognizer.architecture import FaceNetwork
from models.recognizer.squeezed import load_published
from streamgate.convert.checkpoints import load_state
from streamgate.convert.mobilefacenet import MobileFaceNet
from streamgate.errors import WeightsError
from streamgate.weights.catalog import load_catalog
from streamgate.weights.files import sha256_of
from streamgate.weights.store import models_folder

NAME = "mobilefacenet-foamliu"


def load_teacher(path: Path | None, shape: str = "mobilefacenet") -> FaceNetwork:
    """The teacher with the given shape in eval mode, without gradients, from its checkpoint.

    The default path of the standard recognizer is the file that `streamgate models pull` stores. The shape `squeezed`
    has no default path. Only the backbone of the result is usable; its heads are untrained.
    """
    if shape == "squeezed":
        if path is None:
            raise DataError("give --teacher FILE: the .bin of face-reidentification-retail-0095, its .xml next to it")
        network = FaceNetwork(0.0, shape)
        network.backbone = load_published(path)
        return network.eval().requires_grad_(False)
    source = next(entry for entry in load_catalog() if entry.name == NAME).source[0]
    path = path or models_folder() / "downloads" / source.file
    if not path.is_file():
        raise DataError(f"{path}: the teacher is missing; run `streamgate models pull` or give --teacher FILE")
    if sha256_of(path) != source.sha256:
        raise DataError(f"{path}: is not the teacher that the catalog names ({source.file})")
    teacher = FaceNetwork(0.0)
    try:
        teacher.backbone.load_state_dict(load_state(path))
    except WeightsError as error:
        raise DataError(str(error)) from error
    return teacher.eval().requires_grad_(False)


class Teacher:
    """The outputs of the teacher's units. Batch norms are folded into convolutions, which saves a third of the time."""

    def __init__(self, network: FaceNetwork, device: torch.device) -> None:
        self.published = network
        folded = copy.deepcopy(network)
        fold(folded.backbone)
        self.network = folded.to(device, memory_format=torch.channels_last)
        self._units = self.network.units()

    def planes(self, faces: Tensor) -> Tensor:
        """The input of the backbones of teacher and student, from uint8 (N, 112, 112, 3) RGB."""
        return self.network.planes(faces)

    @torch.no_grad()
    def maps(self, planes: Tensor) -> list[Tensor]:
        """The output of each unit (`FaceNetwork.units`) for `planes`; the last output is the features."""
        found, x = [], planes
        for unit in self._units:
            x = unit(x)
            found.append(x)
        return found

    @torch.no_grad()
    def embed(self, features: Tensor) -> Tensor:
        """Embedding (N, D) of features (N, 512)."""
        return self.network.embed(features)


def fold(backbone: MobileFaceNet) -> None:
    """Fold every eval-mode batch norm into the convolution before it, in place."""
    for module in backbone.modules():
        if isinstance(module, nn.Sequential):
            for i in range(len(module) - 1):
                first, second = module[i], module[i + 1]
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    module[i], module[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
