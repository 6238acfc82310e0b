"""Training batches: a pure function of (seed, step), so that a resumed run gets the same batches.

Teacher and student receive the same degraded or covered crop: what makes the teacher's embedding uncertain should also
make the student's embedding uncertain, because SER-FIQ measures this uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.common.degrade import draw_mixture, greyscale, tone
from models.recognizer.covers import REAL_MASK_VISIBLE, draw_cover
from models.recognizer.faces import CANVAS, SIDE, FaceSet, centre


@dataclass(frozen=True)
class Augmentation:
    """config.toml, [augment]: the share of crops, 0..1, for each kind of change, and the size of the changes."""

    degraded: float
    covered: float
    grey: float
    toned: float
    turn_degrees: float
    shift_px: float
    scale: float


class Batches:
    """Map-style data set: `batches[step]` is a dict of arrays.

    face: uint8 [N, 112, 112, 3] RGB; pose: float32 [N, 3] degrees, in the aligned picture; visible: float32 [N], share
    of the face that is not covered.
    """

    def __init__(self, faces: FaceSet, indexes: np.ndarray, size: int, augmentation: Augmentation, seed: int) -> None:
        """indexes: indices of the training faces; size: N."""
        self._canvases, self._pose, self._masked = faces.faces, faces.pose, faces.masked
        self._indexes, self._size, self._how, self._seed = np.asarray(indexes), size, augmentation, seed

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self._seed, 1, step))
        crops, poses, shares = [], [], []
        chosen = self._chosen(step)
        for index, other in zip(chosen, np.roll(chosen, 1), strict=True):
            crop, pose = self._placed(int(index), rng)
            visible = REAL_MASK_VISIBLE if self._masked[index] else 1.0
            if rng.random() < self._how.covered:
                crop, left = draw_cover(crop, rng, centre(self._canvases[int(other)]))
                visible = min(visible, left)
            crops.append(self._coloured(crop, rng))
            poses.append(pose)
            shares.append(visible)
        return {
            "face": np.stack(crops),
            "pose": np.stack(poses).astype(np.float32),
            "visible": np.array(shares, np.float32),
        }

    def _chosen(self, step: int) -> np.ndarray:
        """The faces of a step: each face occurs once per epoch, in a random order."""
        places = np.arange(step * self._size, (step + 1) * self._size)
        epochs = places // len(self._indexes)
        orders = {e: np.random.default_rng((self._seed, 0, int(e))).permutation(self._indexes) for e in set(epochs)}
        return np.array([orders[e][place % len(self._indexes)] for e, place in zip(epochs, places, strict=True)])

    def _placed(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The face, cropped with a small random displacement and mirrored in half of the cases, and its pose."""
        canvas, pose = self._canvases[index], self._pose[index].copy()
        if rng.random() < 0.5:
            canvas = canvas[:, ::-1]
            pose[[0, 2]] *= -1
        angle = float(np.clip(rng.normal(0, self._how.turn_degrees), -15, 15))
        gain = float(np.exp(np.clip(rng.normal(0, self._how.scale), -0.12, 0.12)))
        # Angles are counter-clockwise in OpenCV; the roll of docs/design.md 5 is clockwise.
        matrix = cv2.getRotationMatrix2D(((CANVAS - 1) / 2, (CANVAS - 1) / 2), -angle, gain)
        matrix[:, 2] += np.clip(rng.normal(0, self._how.shift_px, 2), -8, 8) - (CANVAS - SIDE) / 2
        pose[2] += angle
        crop = cv2.warpAffine(canvas, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return crop, pose

    def _coloured(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Apply tone, degradation and greyscale, each to its share of the crops."""
        if rng.random() < self._how.toned:
            crop = tone(crop, rng)
        if rng.random() < self._how.degraded:
            crop = draw_mixture(rng).apply(crop, float(rng.uniform(0, 1)))
        if rng.random() < self._how.grey:
            crop = greyscale(crop)
        return np.ascontiguousarray(crop)
