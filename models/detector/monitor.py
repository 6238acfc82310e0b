"""Evaluation on held-out scenes for the training log: recall, false alarms and landmarks, compared with the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.detector import faces as rows_of
from models.detector.faces import BOX, POINTS, SCORE
from models.detector.scenes import Scenes
from models.detector.trainer import Trainer
from streamgate.networks.detector import NMS_OVERLAP
from streamgate.networks.priors import decode, priors, suppress

MATCH_IOU = 0.35
THRESHOLD = 0.5
SIZES = ((0.0, 24.0), (24.0, 64.0), (64.0, 160.0), (160.0, 1e9))
"""Ranges of face sizes that the log distinguishes, in pixels."""


class Monitor:
    """Scenes of held-out pictures, drawn once."""

    def __init__(self, scenes: Scenes, count: int, height: int = 320, width: int = 320) -> None:
        self._drawn = [scenes.draw(np.random.default_rng((77, i)), height, width) for i in range(count)]
        self._grid = priors(height, width)
        self._teacher: dict[str, float] | None = None

    def look(self, trainer: Trainer) -> dict[str, float]:
        """Figures of both networks: recall by face size, false alarms per scene, landmark error / face size."""
        if self._teacher is None:
            self._teacher = self._figures(trainer.look_teacher)
        figures = self._figures(trainer.look)
        return figures | {f"teacher.{name}": value for name, value in self._teacher.items()}

    def _figures(self, network: Any) -> dict[str, float]:
        hits: list[tuple[float, bool]] = []
        alarms, errors = 0, []
        for image, faces in self._drawn:
            loc, scores, landm = (out[0] for out in network(image[None]))
            boxes, points = find(loc, scores, landm, self._grid)
            found, wrong, error = compare(boxes, points, faces)
            hits += found
            alarms += wrong
            errors += error
        figures = {"alarms": alarms / len(self._drawn), "points": float(np.mean(errors)) if errors else 1.0}
        for low, high in SIZES:
            group = [hit for side, hit in hits if low <= side < high]
            if group:
                figures[f"recall{low:.0f}"] = float(np.mean(group))
        return figures


def find(loc: np.ndarray, scores: np.ndarray, landm: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [n, 4] and landmarks [n, 5, 2] above the threshold, best first."""
    above = np.flatnonzero(scores >= THRESHOLD)
    boxes, points = decode(loc[above], landm[above], grid[above])
    kept = suppress(boxes, scores[above], NMS_OVERLAP)
    return boxes[kept], points[kept]


def compare(
    boxes: np.ndarray, points: np.ndarray, faces: np.ndarray
) -> tuple[list[tuple[float, bool]], int, list[float]]:
    """Size of each sure face and whether it was found; number of boxes on no face; mean landmark errors divided by the
    face size."""
    sure = faces[faces[:, SCORE] == 1]
    shared = rows_of.overlap(boxes, faces[:, BOX])
    alarms = int((shared.max(axis=1) < MATCH_IOU).sum()) if len(faces) else len(boxes)
    hits, errors = [], []
    for row, side in zip(sure, rows_of.sides(sure), strict=True):
        over = rows_of.overlap(boxes, row[None, BOX])[:, 0] if len(boxes) else np.zeros(1)
        hits.append((float(side), bool(over.max() >= MATCH_IOU)))
        if hits[-1][1] and row[rows_of.HAS_POINTS]:
            off = points[int(over.argmax())] - row[POINTS].reshape(5, 2)
            errors.append(float(np.linalg.norm(off, axis=1).mean() / side))
    return hits, alarms, errors


def table(figures: dict[str, float]) -> str:
    """One line for the log: each figure of this network, a slash, and the teacher's figure."""
    names = [name for name in figures if not name.startswith("teacher.")]
    return " ".join(f"{n} {figures[n]:.3f}/{figures.get('teacher.' + n, float('nan')):.3f}" for n in names)


def held_out(sha256: Sequence[str], backgrounds: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training pictures and of the held-out pictures.

    `count` pictures with faces are held out, and `count` / 4 (at least one) without faces. They are chosen by
    content, so that they stay the same when data is added. All copies of a picture are on the same side.
    """
    order = np.array(sorted(range(len(sha256)), key=lambda i: sha256[i]), int)
    faces, empty = order[~backgrounds[order]], order[backgrounds[order]]

    def end(of: np.ndarray, count: int) -> int:
        while 0 < count < len(of) and sha256[of[count]] == sha256[of[count - 1]]:
            count += 1
        return count

    many, few = end(faces, count), end(empty, max(1, count // 4))
    return np.concatenate([faces[many:], empty[few:]]), np.concatenate([faces[:many], empty[:few]])
