"""Describes the crop of a face that a measure rates, and the input and output of the network that rates it."""

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
    """Describes a measure that takes one crop of a face and returns one number, and optionally a map.

    Attributes:
        engine: what computes the measure.
        file: the ONNX file, the catalog name of pulled weights, or the name of the pyiqa metric, depending on `engine`.
        crop: "ffhq" and "arcface" are the aligned squares; "loose" is a square around the face's box with a margin;
            "box" is the box itself with a margin, shifted so that it is inside the picture, and stretched to a square;
            "points" aligns the face so that eyes and mouth are at given points.
        size: side of the crop in pixels.
        margin: the margin on each side, as a share of the box's longer side ("loose") or of the box's width and height
            ("box").
        points: for "points", where the left eye, the right eye (as the viewer sees them) and the centre of the mouth
            are in the crop, as shares of the crop's side.
        colour, span, mean, std: the network's input is ((x / 255) * (span[1] - span[0]) + span[0] - mean) / std per
            channel, with x in 0..255 in the order `colour`.
        output, map: names of the graph's outputs. An empty `output` means the first output; an empty `map` means that
            there is no map.
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
        """Everything that affects the values; part of `calibration_id`.

        The folder of `file` is left out, because it does not affect them.
        """
        return {**asdict(self), "file": PurePath(self.file).name}
