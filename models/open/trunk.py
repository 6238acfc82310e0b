"""The heads `visible` and `real` of the open expression network, and the Face Landmarker's maps that they use.

The published network receives a square of 256 px that extends beyond the crop; there, the crop's border pixels are
repeated. The heads only receive the cells of the network's maps that show the crop.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.common.layers import unit
from models.common.statistics_head import StatisticsHead, over_map
from models.common.training import floats, halved, load_weights

HEADS_NAME = "heads.pth"
TAPS = (257, 281, 313, 345, 377, 408)
"""Numbers of the tensors of the published graph whose maps are used. The maps (channels x height x width) are
16 x 128 x 128 (twice), 32 x 64 x 64, 64 x 32 x 32, 128 x 16 x 16 and 128 x 8 x 8."""
CHANNELS = (16, 16, 32, 64, 128, 128)
_SIDES = (128, 128, 64, 32, 16, 8)
TOP, BOTTOM, LEFT, RIGHT = 2, 15, 2, 14
"""The rows (TOP to BOTTOM - 1) and columns (LEFT to RIGHT - 1) of the map of 16 x 16 cells that show the crop."""
CELLS = (BOTTOM - TOP, RIGHT - LEFT)
FIGURES = 4 * sum(CHANNELS)
"""Number of statistics of a face that the head `real` receives."""
_LARGE = 40


def shown(maps: list[Tensor]) -> list[Tensor]:
    """The cells that show the crop, of each of the maps of TAPS, (N, C, H, W)."""
    found = []
    for each, side in zip(maps, _SIDES, strict=True):
        if side < 16:
            found.append(each[:, :, 1:7, 1:7])
        else:
            gain = side // 16
            found.append(each[:, :, TOP * gain : BOTTOM * gain, LEFT * gain : RIGHT * gain])
    return found


class CoveredHead(nn.Module):
    """Occlusion: logits of the covered share of each cell (N, 13, 12), and of the extent (N,), the square root of the
    covered share (as in `models.expression.architecture.VisibleHead`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.edges = unit(CHANNELS[1], 16, 2)
        self.parts = unit(16 + CHANNELS[2], 32, 2)
        self.wholes = unit(32 + CHANNELS[3], 48, 2)
        self.known = unit(CHANNELS[4], 48, 1, 1)
        self.both = unit(48 + 48, 64)
        self.cells = nn.Conv2d(64, 1, 1)
        self.squeeze = unit(64, 16, 1, 1)
        self.hidden = nn.Linear(16 * CELLS[0] * CELLS[1], 48)
        self.extent = nn.Linear(48, 1)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """maps: from `shown`."""
        parts = self.parts(torch.cat([self.edges(maps[1]), maps[2]], dim=1))
        wholes = self.wholes(torch.cat([parts, maps[3]], dim=1))
        found = self.both(torch.cat([wholes, self.known(maps[4])], dim=1))
        hidden = torch.relu(over_map(self.hidden, self.squeeze(found)))
        return self.cells(found).flatten(2).reshape(-1, *CELLS), over_map(self.extent, hidden).flatten(1).squeeze(1)


class PhotographHead(StatisticsHead):
    """Is the face photographed? One logit from `figures` (as in `models.expression.architecture.RealHead`)."""

    def __init__(self) -> None:
        super().__init__(FIGURES)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Logits (N,); maps: from `shown`."""
        return self.logits(figures(maps))


HEADS: dict[str, type[nn.Module]] = {"visible": CoveredHead, "real": PhotographHead}
"""The heads by the name of their output, in the order of the outputs."""


def figures(maps: list[Tensor]) -> Tensor:
    """Mean, standard deviation, maximum and extent of each map from `shown`, (N, FIGURES, 1, 1)."""
    pool = nn.functional.adaptive_avg_pool2d
    parts = []
    for each in maps:
        # In a large map, every second row and column is enough.
        some = each[:, :, ::2, ::2] if each.shape[-1] > _LARGE else each
        mean = pool(some, 1)
        # Without the small constant, the root would amplify the rounding errors of a map without contrast.
        variance = (pool(some * some, 1) - mean * mean).clamp_min(0.0) + 1e-3
        extent = pool((some * 4.0).clamp(0.0, 1.0), 1)
        parts += [mean, variance.sqrt(), nn.functional.adaptive_max_pool2d(some, 1), extent]
    return torch.cat(parts, dim=1)


def read_heads(folder: Path) -> dict[str, Any]:
    """The trained heads in a folder's heads.pth: `{"weights": state dict, "card": entry of the card}`, by name of the
    head (`visible`, `real`).

    A head that has not been trained yet is missing, and so are both if there is no file. Raises DataError if the file
    cannot be read.
    """
    path = folder / HEADS_NAME
    if not path.is_file():
        return {}
    return load_weights(path)


def write_head(folder: Path, name: str, head: nn.Module, told: Mapping[str, Any]) -> None:
    """Add a head to a folder's heads.pth, or replace it; the file is replaced in one step.

    Weights are stored in half precision. told: the head's entry of the card.
    """
    heads = read_heads(folder)
    heads[name] = {"weights": halved(head.state_dict()), "card": dict(told)}
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{HEADS_NAME}.part"
    torch.save(heads, part)
    part.replace(folder / HEADS_NAME)


def trained(heads: Mapping[str, Any], name: str, head: nn.Module) -> nn.Module:
    """The head with its weights from `read_heads`, for inference."""
    head.load_state_dict(floats(heads[name]["weights"]))
    return head.eval().requires_grad_(False)


class Trunk:
    """Computes what a head receives for crops, with the published network in ONNX Runtime on one thread."""

    def __init__(self, task: Path, head: str) -> None:
        """head: "visible" if `maps` will be called, "real" if `figures` will be called. Raises DataError if `task` is
        not the published file.
        """
        import onnxruntime

        from models.open.landmarker import LandmarkGraph
        from streamgate.convert.export import export, noise
        from streamgate.networks.alignment import EXPRESSION_SIZE

        size = (*EXPRESSION_SIZE, 3)
        self._names = ("figures",) if head == "real" else ("map1", "map2", "map3", "map4")
        graph = _Given(LandmarkGraph(task).eval(), head == "real")
        model = export(graph, "face", self._names, noise(2, *size), noise(3, *size))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def maps(self, crops: np.ndarray) -> list[Tensor]:
        """Maps as from `shown`, for crops uint8 [N, 144, 128, 3] RGB; maps without use in `CoveredHead` are empty."""
        found = self._session.run(list(self._names), {"face": crops})
        return [torch.empty(0), *map(torch.from_numpy, found), torch.empty(0)]

    def figures(self, crops: np.ndarray, chunk: int = 16) -> Tensor:
        """The statistics `figures`, float32 [N, FIGURES, 1, 1], for crops uint8 [N, 144, 128, 3] RGB."""
        parts = [
            self._session.run(None, {"face": np.ascontiguousarray(crops[start : start + chunk])})[0]
            for start in range(0, len(crops), chunk)
        ]
        return torch.from_numpy(np.concatenate(parts))


class _Given(nn.Module):
    def __init__(self, graph: nn.Module, statistics: bool) -> None:
        super().__init__()
        self.graph, self.statistics = graph, statistics

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        maps = self.graph.maps(face)
        return (figures(maps),) if self.statistics else tuple(maps[1:5])
