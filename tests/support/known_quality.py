"""A scorer without networks, whose answers are functions of time, for tests of what is searched and kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streamgate.faces import Face, GateResult
from streamgate.frames import Array, Picture
from streamgate.networks.batcher import InferenceRequest
from streamgate.scoring.lockstep import Floor, Steps
from streamgate.sources import picture_of_rgb
from streamgate.tracks import Candidate

PICTURE = picture_of_rgb(np.zeros((64, 64, 3), np.uint8))
FACE = Face(
    np.array([10, 10, 50, 50], np.float32),
    np.array([[20, 25], [40, 25], [30, 32], [22, 42], [38, 42]], np.float32),
    0.99,
)


class KnownQuality:
    """Scores by a function of time; counts what was asked of it."""

    def __init__(self, quality: Callable[[float], float], potential: Callable[[float], float] | None = None) -> None:
        self._quality = quality
        self._potential = potential or (lambda pts: 100.0)
        self.scored: list[float] = []
        self.recognised: list[float] = []
        self.failing: Callable[[float], bool] = lambda pts: False
        """When the gate is shut before a quality is known."""

    sees_expressions = False
    sees_drawings = True
    identity_threshold = None

    def prescore(self, candidate: Candidate, picture: Picture) -> float:
        candidate.bound = self._potential(candidate.pts_seconds)
        return candidate.bound

    def score(
        self, candidate: Candidate, picture: Picture, floor: Floor, *, full: bool, real_from: Candidate | None = None
    ) -> Steps:
        (answer,) = yield [InferenceRequest("recognizer", np.zeros((1, 1, 3), np.uint8))]
        assert answer == "recognizer"
        self.recognised.append(candidate.pts_seconds)
        candidate.evidence.embedding = np.ones(4, np.float32)
        if not full and floor(candidate) == np.inf:
            return
        self.scored.append(candidate.pts_seconds)
        if self.failing(candidate.pts_seconds):
            candidate.gate = GateResult(False, ("eyes_closed",))
            return
        candidate.quality = self._quality(candidate.pts_seconds)
        candidate.gate = GateResult(candidate.quality >= 20, () if candidate.quality >= 20 else ("serfiq_low",))

    def replace_assumed_real(self, candidate: Candidate, picture: Picture) -> Steps:
        yield from ()

    def crop(self, candidate: Candidate, picture: Picture) -> Array:
        return np.zeros((4, 4, 3), np.uint8)

    def fingerprint(self, candidate: Candidate, picture: Picture) -> int | None:
        return None
