"""What a measure of somebody else looks at: which crop of a face, and how its network takes and gives values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Literal

Engine = Literal["onnx", "pulled", "pyiqa", "niqe", "brisque"]
CropKind = Literal["ffhq", "arcface", "loose", "box", "points"]
Triple = tuple[float, float, float]
CHEAP: tuple[Engine, ...] = ("niqe", "brisque")


@dataclass(frozen=True, slots=True)
class CropCard:
    """A measure that takes one crop of a face and gives one number, and perhaps a map.

    Attributes:
        engine: who computes it.
        file: the ONNX file, the catalog's name of pulled weights, or the name of the pyiqa metric.
        crop: FFHQ's square, ArcFace's, a square around the box with a margin, the box itself with a margin, moved into
            the picture and stretched to a square, or eyes and mouth at given points.
        size: side of the crop in pixels.
        margin: of a loose crop: so much of the box's longer side at each side; of a box: of each side itself.
        points: of a crop by points: viewer's left eye, right eye, middle of the mouth as shares of the side.
        colour, span, mean, std: the network's input is ((x / 255) * (span[1] - span[0]) + span[0] - mean) / std by
            channel, x 0..255 in the order `colour`.
        output, map: names of the graph's outputs; the first for an empty one, and no map.
    """

    engine: Engine
    file: str = ""
    crop: CropKind = "ffhq"
    size: int = 256
    margin: float = 0.3
    points: tuple[tuple[float, float], ...] = ()
    colour: Literal["RGB", "BGR", "grey"] = "RGB"
    span: tuple[float, float] = (0.0, 1.0)
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    output: str = ""
    map: str = ""

    def meaning(self) -> dict[str, object]:
        """All that decides about values, for `calibration_id`: of a file the name alone, wherever it is."""
        return {**asdict(self), "file": PurePath(self.file).name}
