"""The shipped expression network as the evaluation runs it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.common.images import DataError
from models.expression.architecture import OUTPUTS, SIGNALS
from models.expression.deploy import CARD_NAME, ONNX_NAME


@dataclass(frozen=True)
class Answers:
    """Outputs for N faces: pose [N, 3] in degrees, signals [N, S], points [N, P, 2] in pixels of the crop, visible and
    real [N].

    visible and real are NaN if the network has no such output.
    """

    pose: np.ndarray
    signals: np.ndarray
    points: np.ndarray
    visible: np.ndarray
    real: np.ndarray

    def signal(self, name: str) -> np.ndarray:
        """The signal of this name (one of SIGNALS), [N]."""
        return self.signals[:, SIGNALS.index(name)]


class OwnNetwork:
    """The network in a folder with `expression.onnx` and its card, on one thread.

    Raises DataError if there is no card.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        if not (folder / CARD_NAME).is_file():
            raise DataError(f"{folder}: no {ONNX_NAME} with its {CARD_NAME}; run train.py --export first")
        self.card = json.loads((folder / CARD_NAME).read_text())
        self.path = folder / self.card["file"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def run(self, crops: np.ndarray, chunk: int = 32) -> Answers:
        """The outputs for crops uint8 [N, 144, 128, 3] RGB."""
        there = [output.name for output in self.session.get_outputs()]
        parts = [
            self.session.run(there, {"face": np.ascontiguousarray(crops[start : start + chunk])})
            for start in range(0, len(crops), chunk)
        ]
        found = {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(there)}
        return Answers(*(found.get(name, np.full(len(crops), np.nan)) for name in OUTPUTS))
