"""What a face does at this moment: mouth, eyes, brows, and where head and eyes turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamgate.errors import WeightsError
from streamgate.frames import Array
from streamgate.networks.alignment import EXPRESSION_SIZE
from streamgate.networks.runtime import Session, as_input, check_pictures

NEEDED = (
    "browInnerUp", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft",
    "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "jawOpen", "lidsLeft",
    "lidsRight", "lipGap", "mouthFunnel", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthUpperUpLeft", "mouthUpperUpRight",
)  # fmt: skip
"""Signals that measures are made of: blendshapes of ARKit, about 0..1, and lengths over the distance between the eyes
(`lids...`: opening of the lids, `lipGap`: between the lips); left and right are the person's own."""


@dataclass(frozen=True, slots=True)
class ExpressionOutput:
    """One face: `yaw` and `pitch` in degrees as its upright picture shows them, and the signals by name."""

    yaw: float
    pitch: float
    signals: Mapping[str, float]

    def both(self, stem: str) -> float:
        """The mean of a signal's left and right."""
        return (self.signals[f"{stem}Left"] + self.signals[f"{stem}Right"]) / 2


class ExpressionNetwork:
    """Expressions of faces aligned by their eyes. Thread-safe."""

    def __init__(self, session: Session) -> None:
        """Raises WeightsError where the card's `output.signals` lacks a name of NEEDED."""
        session.need_outputs("pose", "signals")
        self._session = session
        self._names = tuple(str(name) for name in session.weights.output.get("signals", ()))
        if missing := [name for name in NEEDED if name not in self._names]:
            raise WeightsError(f"{session.weights.name}: its card names no signal {missing[0]} in output.signals")

    def run(self, crops: Array) -> list[ExpressionOutput]:
        """Run crops RGB uint8 (N, 144, 128, 3), aligned with `expression_matrix`; one answer a crop.

        Raises WeightsError where the graph gives another number of signals than its card names.
        """
        crops = check_pictures(crops, EXPRESSION_SIZE)
        outputs = self._session.run_rows(as_input(crops, self._session.weights.input))
        signals, pose = outputs["signals"], outputs["pose"]
        if signals.shape[1] != len(self._names):
            name = self._session.weights.name
            raise WeightsError(f"{name}: gives {signals.shape[1]} signals, its card names {len(self._names)}")
        return [
            ExpressionOutput(float(turn[0]), float(turn[1]), dict(zip(self._names, row.tolist(), strict=True)))
            for turn, row in zip(pose, signals, strict=True)
        ]
