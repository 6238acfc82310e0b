"""Training batches: a pure function of (seed, step), so that a resumed run gets the same batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.detector import faces as rows_of
from models.detector.scenes import Scenes


class Batches:
    """Map-style data set: `batches[step]` is a dict of arrays.

    image: uint8 [N, H, W, 3] RGB, where (N, H, W) is one of the shapes for this step; faces: float32 [N, M, 16]
    (faces.py), with a score of 1 for a face, 0 for neither face nor background, and -1 for padding.
    """

    def __init__(
        self, scenes: Scenes, early: Sequence[Sequence[int]], late: Sequence[Sequence[int]], join: int, seed: int
    ) -> None:
        """early, late: the shapes (N, H, W) to choose from before step `join`, and from that step on; H and W are
        multiples of 32."""
        self._scenes, self._early, self._late, self._join, self._seed = scenes, early, late, join, seed

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self._seed, 1, step))
        shapes = self._early if step < self._join else self._late
        count, height, width = shapes[int(rng.integers(len(shapes)))]
        drawn = [self._scenes.draw(rng, height, width) for _ in range(count)]
        faces = np.zeros((count, max(1, *(len(rows) for _, rows in drawn)), rows_of.COLUMNS), np.float32)
        faces[..., rows_of.SCORE] = -1.0
        for place, (_, rows) in zip(faces, drawn, strict=True):
            place[: len(rows)] = rows
        return {"image": np.stack([scene for scene, _ in drawn]), "faces": faces}
