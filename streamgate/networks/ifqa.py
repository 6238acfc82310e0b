"""IFQA: how clean and real a face looks, as a score and a map (docs/design.md 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from streamgate.frames import Array
from streamgate.networks.sessions import Session, check_pictures

CROP_SIDE = 256


@dataclass(frozen=True, slots=True)
class IfqaOutput:
    """Results for N faces: `score` float32 (N,) and `map` float32 (N, 256, 256), both 0..1, higher is better.

    The batcher returns the result for one face, without the N axis.
    """

    score: Array
    map: Array

    def row(self, index: int) -> IfqaOutput:
        """The values of one face, without the N axis."""
        return IfqaOutput(self.score[index], self.map[index])


class IfqaNetwork:
    """Runs the IFQA network on FFHQ-aligned crops. Thread-safe."""

    def __init__(self, session: Session) -> None:
        session.need_outputs("score", "map")
        self._session = session

    def run(self, crops: Array) -> IfqaOutput:
        """Run crops RGB uint8 (N, 256, 256, 3), aligned with `ffhq_matrix`; never pass an upscaled 112 px crop."""
        crops = check_pictures(crops, CROP_SIDE)
        outputs = self._session.run_pictures(crops)
        return IfqaOutput(outputs["score"], outputs["map"])
