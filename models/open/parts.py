"""Training pictures for the head in ssd.py: labelled faces, cut out as if the published detector had found them.

The published detector's boxes differ from the labels at random: the centre by 4 % of a side, and the length of a side
by 7 % (standard deviations, measured on 1,947 faces in scenes that were composed from the labelled pictures).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from models.common.degrade import blur, greyscale, jpeg, lowres, night, noise, tone
from models.detector import faces as rows_of
from models.detector.pictures import PictureSet
from models.detector.scenes import MIRRORED, turn
from models.open.ssd import AROUND, PART, SCALE

SIDE = 80
"""Side in pixels of the picture that is kept of each face."""
REACH = 2.4
"""The same side relative to the longer side of the label's box; large enough to cut out turned and shifted parts."""
CENTRE_OFF, SIDE_OFF = 0.04, 0.07


@dataclass(frozen=True)
class Changes:
    """config.toml, [part]: shares of the parts, 0..1, and the standard deviation of the angle."""

    turned: float
    turn_degrees: float
    toned: float
    grey: float
    night: float
    blurred: float
    small: float
    noisy: float
    coded: float


class Faces:
    """The labelled faces of some pictures, without those that have no landmarks.

    pictures: uint8 [n, SIDE, SIDE, 3] RGB; points: float32 [n, 5, 2], relative to the centre of the label's box, as
    shares of its longer side.
    """

    def __init__(self, source: PictureSet, indexes: Sequence[int] | np.ndarray) -> None:
        """indexes: the pictures of `source` to use. Copies of a picture are used as often as they are in `source`."""
        kept, points = [], []
        for index in map(int, indexes):
            rows = source.faces[index]
            rows = rows[(rows[:, rows_of.SCORE] >= rows_of.SURE) & (rows[:, rows_of.HAS_POINTS] > 0)]
            if not len(rows):
                continue
            picture = source.picture(index)
            for row in rows:
                middle, side = (row[:2] + row[2:4]) / 2, float((row[2:4] - row[:2]).max())
                kept.append(_cut(picture, middle, REACH * side))
                points.append((row[rows_of.POINTS].reshape(5, 2) + 0.5 - middle) / side)
        self.pictures = np.array(kept, np.uint8).reshape(-1, SIDE, SIDE, 3)
        self.points = np.array(points, np.float32).reshape(-1, 5, 2)

    def __len__(self) -> int:
        return len(self.pictures)

    def average_values(self) -> Tensor:
        """The values (10,) for a box that the head does not see: the medians over all faces."""
        return torch.from_numpy(np.median(self.points, axis=0).astype(np.float32).reshape(-1) / (SCALE * AROUND))


def _cut(picture: np.ndarray, middle: np.ndarray, side: float) -> np.ndarray:
    """The square with this centre and side, scaled to SIDE pixels; border pixels are repeated outside the picture."""
    gain = SIDE / side
    if gain < 0.7:
        # warpAffine does not average, so a picture that shrinks is first scaled down by area.
        size = [max(1, round(length * gain)) for length in picture.shape[1::-1]]
        middle = middle * size / np.array(picture.shape[1::-1])
        picture, gain = cv2.resize(picture, size, interpolation=cv2.INTER_AREA), 1.0
    matrix = np.array([[gain, 0, 0], [0, gain, 0]])
    matrix[:, 2] = SIDE / 2 - 0.5 - gain * (middle - 0.5)
    return np.asarray(cv2.warpAffine(picture, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE))


class PartBatches:
    """Map-style data set: `batches[step]` is a pure function of (seed, step), so a resumed run gets the same batches.

    part: uint8 [N, PART, PART, 3] RGB; values: float32 [N, 10], see `ssd.VALUES`.
    """

    def __init__(self, faces: Faces, count: int, changes: Changes, seed: int) -> None:
        """count: number of faces per batch."""
        self._faces, self._count, self._changes, self._seed = faces, count, changes, seed

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self._seed, 2, step))
        drawn = [self._draw(rng) for _ in range(self._count)]
        return {"part": np.stack([part for part, _ in drawn]), "values": np.stack([values for _, values in drawn])}

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        index = int(rng.integers(len(self._faces)))
        picture, points = self._faces.pictures[index], self._faces.points[index]
        if rng.random() < 0.5:
            picture, points = picture[:, ::-1], points[list(MIRRORED)] * (-1, 1)
        spin = turn(rng, self._changes.turned, self._changes.turn_degrees)
        shift = rng.normal(0, CENTRE_OFF, 2)
        side = AROUND * float(np.exp(rng.normal(0, SIDE_OFF)))
        matrix = np.zeros((2, 3))
        matrix[:, :2] = spin * (PART * REACH / (SIDE * side))
        matrix[:, 2] = PART / 2 - 0.5 - PART / side * shift - matrix[:, :2] @ np.full(2, SIDE / 2 - 0.5)
        part = cv2.warpAffine(np.ascontiguousarray(picture), matrix, (PART, PART), borderMode=cv2.BORDER_REPLICATE)
        values = (points @ spin.T - shift) / (SCALE * side)
        return self._changed(np.asarray(part), rng), values.astype(np.float32).reshape(-1)

    def _changed(self, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        how = self._changes
        if rng.random() < how.toned:
            part = tone(part, rng, 1.2)
        if rng.random() < how.night:
            part = night(part, rng)
        for share, change, most in (
            (how.blurred, blur, 0.6), (how.small, lowres, 0.6), (how.noisy, noise, 0.6), (how.coded, jpeg, 0.7),
        ):  # fmt: skip
            if rng.random() < share:
                part = change(part, float(rng.uniform(0, most)), float(rng.random()), int(rng.integers(1 << 30)))
        if rng.random() < how.grey:
            part = greyscale(part)
        return np.ascontiguousarray(part)
