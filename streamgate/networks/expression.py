"""Facial expression: mouth, eyes, brows, direction of head and gaze, and whether the face is covered and real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streamgate.errors import WeightsError
from streamgate.frames import Array
from streamgate.networks.alignment import EXPRESSION_EYE_DISTANCE, EXPRESSION_SIZE
from streamgate.networks.sessions import Session, check_pictures

NEEDED = (
    "browDownLeft", "browDownRight", "browInnerUp", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft",
    "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft",
    "eyeSquintRight", "jawOpen", "lidsLeft", "lidsRight", "lipGap", "mouthFunnel", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
)  # fmt: skip
"""Signals that measures use: ARKit blendshapes, about 0..1, and lengths relative to the distance between the eyes
(`lids...`: opening of the lids, `lipGap`: gap between the lips); left and right are the person's own."""

_LIDS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
_LANDMARKS = (*_LIDS, (1,), (61,), (291,))
"""For each landmark (eyes, nose, corners of the mouth; left before right, as seen in the picture), the mesh points
whose mean is the landmark."""
_OFFSETS = EXPRESSION_EYE_DISTANCE * np.array(
    [[-0.01, -0.02], [0.01, -0.02], [0.0, -0.06], [-0.01, -0.01], [0.01, -0.01]]
)
"""Mean offset, in pixels of the crop, from these means of mesh points to the landmarks that the detector returns."""


@dataclass(frozen=True, slots=True)
class ExpressionOutput:
    """Result for one face.

    Attributes:
        yaw, pitch: degrees, relative to the crop, in which the face is upright.
        signals: values of the card's signals, by name; see `NEEDED`.
        landmarks: the five landmarks, float64 (5, 2), in pixels of the crop.
        visible: share of the face that is not covered, 0..1; None if the graph has no such output.
        real: 0..1, below 0.5 for a face that is drawn, rendered or sculpted; None if the graph has no such output.
    """

    yaw: float
    pitch: float
    signals: Mapping[str, float]
    landmarks: Array
    visible: float | None = None
    real: float | None = None

    def both(self, stem: str) -> float:
        """The mean of a signal's left and right values."""
        return (self.signals[f"{stem}Left"] + self.signals[f"{stem}Right"]) / 2


class ExpressionNetwork:
    """Runs the expression network on faces that are aligned by their eyes. Thread-safe."""

    def __init__(self, session: Session) -> None:
        """Raises WeightsError if `output.signals` or `output.points` on the card lacks an entry that is needed."""
        session.need_outputs("pose", "signals", "points")
        self._session = session
        self._names = tuple(str(name) for name in session.weights.output.get("signals", ()))
        if missing := [name for name in NEEDED if name not in self._names]:
            raise WeightsError(f"{session.weights.name}: its card lacks the signal {missing[0]} in output.signals")
        positions = {int(number): i for i, number in enumerate(session.weights.output.get("points", ()))}
        if lacking := [number for part in _LANDMARKS for number in part if number not in positions]:
            raise WeightsError(f"{session.weights.name}: its card lacks the point {lacking[0]} in output.points")
        self._positions = [[positions[number] for number in part] for part in _LANDMARKS]

    def run(self, crops: Array, *, real: bool = True) -> list[ExpressionOutput]:
        """Run crops RGB uint8 (N, 144, 128, 3), aligned with `expression_matrix`; returns one result per crop.

        If `real` is false, the results have no value of `real` (None). If the graph can leave out this output, a run
        on the CPU then takes less than half the time.

        Raises WeightsError if the number of signals differs between the graph and its card.
        """
        crops = check_pictures(crops, EXPRESSION_SIZE)
        outputs = self._session.run_pictures(crops, "" if real else "real")
        if not real:
            outputs.pop("real", None)
        signals, pose, points = outputs["signals"], outputs["pose"], outputs["points"]
        if signals.shape[1] != len(self._names):
            name = self._session.weights.name
            raise WeightsError(f"{name}: returns {signals.shape[1]} signals, but its card lists {len(self._names)}")
        optional = [outputs[name].tolist() if name in outputs else [None] * len(crops) for name in ("visible", "real")]
        return [
            ExpressionOutput(
                float(turn[0]),
                float(turn[1]),
                dict(zip(self._names, row.tolist(), strict=True)),
                self._landmarks(where),
                share,
                real,
            )
            for turn, row, where, share, real in zip(pose, signals, points, *optional, strict=True)
        ]

    def _landmarks(self, points: Array) -> Array:
        return np.stack([points[part].mean(axis=0, dtype=np.float64) for part in self._positions]) + _OFFSETS
