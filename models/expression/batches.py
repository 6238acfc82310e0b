"""Training batches. They depend only on seed and step, so that a stopped run can be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.common.degrade import draw_mixture, greyscale, tone
from models.expression.architecture import (
    BLENDSHAPES,
    LOOK_ABOVE,
    LOOK_ACROSS,
    MEASURED,
    MIRRORED_POINTS,
    SIGNALS,
    words,
)
from models.expression.dataset import CANVAS, FaceSet
from streamgate.measures.gaze import EYES_TURN, LEVEL
from streamgate.networks.alignment import EXPRESSION_SIZE

_SPREAD = words(
    "jawOpen lipGap mouthClose mouthPucker mouthFunnel mouthPressLeft mouthSmileLeft mouthStretchLeft "
    "mouthFrownLeft mouthUpperUpLeft mouthLowerDownLeft mouthWidth eyeBlinkLeft lidsLeft lidsRight "
    "eyeLookDownLeft eyeLookUpLeft eyeLookInLeft eyeLookOutLeft irisAcrossLeft irisAboveLeft browDownLeft "
    "browInnerUp"
)
"""Signals whose rare values are sampled more often, so that samples are spread more evenly over their range."""
_BINS = 12
_GAZE_SHARE = 4
"""Weight of the gaze among these signals, which have weight 1."""


@dataclass(frozen=True)
class Augmentation:
    """config.toml, [augment]: shares of the crops, 0..1, that are degraded, grey or changed in tone; and standard
    deviations of rotation, shift and scale.
    """

    degraded: float
    grey: float
    toned: float
    turn_degrees: float
    shift_px: float
    scale: float


@dataclass(frozen=True)
class Placed:
    """A crop uint8 [144, 128, 3] with points [P, 2], signals [S] and pose [3]; matrix [2, 3]: from canvas to crop."""

    crop: np.ndarray
    points: np.ndarray
    signals: np.ndarray
    pose: np.ndarray
    matrix: np.ndarray


def gaze_of(signals: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Direction of the gaze relative to the camera, [n, 2] in degrees, across and above; about 0 into the camera."""
    turned = [
        sum(share * signals[:, SIGNALS.index(name)] for name, share in parts.items())
        for parts in (LOOK_ACROSS, LOOK_ABOVE)
    ]
    return pose[:, :2] + EYES_TURN * np.stack(turned, axis=1) - np.array([0.0, LEVEL])


def mirrored_signals() -> tuple[np.ndarray, np.ndarray]:
    """For every signal, the index of the signal from which its value in the mirrored face is taken, and the sign."""

    def other(name: str) -> str:
        if name.endswith("Left"):
            return name[:-4] + "Right"
        return name[:-5] + "Left" if name.endswith("Right") else name

    source = np.array([SIGNALS.index(other(name)) for name in SIGNALS])
    sign = np.array([-1.0 if name.startswith("irisAcross") else 1.0 for name in SIGNALS], np.float32)
    return source, sign


def weights(faces: FaceSet, indexes: np.ndarray, largest: float = 12.0) -> np.ndarray:
    """Probability with which each face is sampled: high for rare signals and poses, low for frames of long clips."""
    columns = [faces.signals[indexes, SIGNALS.index(name)] for name in _SPREAD]
    columns += [faces.pose[indexes, 0], faces.pose[indexes, 1]]
    columns += [*gaze_of(faces.signals[indexes], faces.pose[indexes]).T] * _GAZE_SHARE
    rarity = np.zeros(len(indexes))
    for values in columns:
        low, high = np.quantile(values, (0.005, 0.995))
        bins = np.clip(((values - low) / max(high - low, 1e-6) * _BINS).astype(int), 0, _BINS - 1)
        counts = np.bincount(bins, minlength=_BINS)
        rarity += np.minimum(len(indexes) / _BINS / np.maximum(counts, 1), largest)[bins]
    rarity /= len(columns)
    sizes: dict[str, int] = {}
    for index in indexes:
        sizes[faces.clips[index]] = sizes.get(faces.clips[index], 0) + 1
    length = np.array([1.0 if not faces.clips[i] else min(1.0, (40 / sizes[faces.clips[i]]) ** 0.5) for i in indexes])
    drawn = rarity * length
    return drawn / drawn.sum()


class Batches:
    """Map-style data set: `batches[step]` is a dict of arrays.

    face: uint8 [N, 144, 128, 3] RGB; points: float32 [N, P, 2] in pixels of the crop; signals: float32 [N, S];
    pose: float32 [N, 3] in degrees.
    """

    def __init__(
        self, faces: FaceSet, indexes: Sequence[int] | np.ndarray, size: int, augmentation: Augmentation, seed: int
    ) -> None:
        """indexes: faces to train on; size: number of faces in a batch, N."""
        self._faces, self._indexes, self._size = faces, np.asarray(indexes), size
        self._how, self._seed = augmentation, seed
        self._likely = weights(faces, self._indexes)
        self._source, self._sign = mirrored_signals()

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self._seed, step))
        views = [self._view(int(i), rng) for i in rng.choice(self._indexes, self._size, p=self._likely)]
        return {
            "face": np.stack([view[0] for view in views]),
            "points": np.stack([view[1] for view in views]).astype(np.float32),
            "signals": np.stack([view[2] for view in views]).astype(np.float32),
            "pose": np.stack([view[3] for view in views]).astype(np.float32),
        }

    def _view(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A crop, randomly placed and degraded, with its labels: face, points, signals, pose."""
        placed = self._placed(index, rng)
        return self._coloured(placed.crop, rng), placed.points, placed.signals, placed.pose

    def _placed(self, index: int, rng: np.random.Generator) -> Placed:
        """A crop with random shift, rotation and scale as of a detection, mirrored half of the time, and its labels."""
        faces = self._faces
        canvas, points = faces.canvases[index], faces.points[index]
        signals, pose = faces.signals[index], faces.pose[index].copy()
        mirrored = rng.random() < 0.5
        if mirrored:
            canvas = canvas[:, ::-1]
            points = points[list(MIRRORED_POINTS)] * np.array([-1.0, 1.0]) + np.array([CANVAS[1] - 1.0, 0.0])
            signals = signals[self._source] * self._sign
            pose[[0, 2]] *= -1
        matrix, gain, angle = self._place(rng)
        size = EXPRESSION_SIZE[::-1]
        crop = cv2.warpAffine(canvas, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        points = points @ matrix[:, :2].T + matrix[:, 2]
        signals = signals.copy()
        # The network does not know the crop's scale, so lengths are relative to the nominal distance between the eyes.
        signals[len(BLENDSHAPES) :] *= gain
        pose[2] += angle
        if mirrored:
            matrix = matrix @ np.array([[-1.0, 0.0, CANVAS[1] - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        return Placed(crop, points, signals, pose, matrix)

    def _place(self, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
        how = self._how
        angle = float(np.clip(rng.normal(0, how.turn_degrees), -15, 15))
        gain = float(np.exp(np.clip(rng.normal(0, how.scale), -0.2, 0.2)))
        centre = ((CANVAS[1] - 1) / 2, (CANVAS[0] - 1) / 2)
        matrix = cv2.getRotationMatrix2D(centre, -angle, gain)
        margin = np.array([CANVAS[1] - EXPRESSION_SIZE[1], CANVAS[0] - EXPRESSION_SIZE[0]]) / 2
        matrix[:, 2] += np.clip(rng.normal(0, how.shift_px, 2), -8, 8) - margin
        return matrix, gain, angle

    def _coloured(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The crop with changed tones, degraded or grey, each with the probability in the config."""
        if rng.random() < self._how.toned:
            crop = tone(crop, rng)
        if rng.random() < self._how.degraded:
            crop = draw_mixture(rng).apply(crop, float(rng.uniform(0, 0.8)))
        if rng.random() < self._how.grey:
            crop = greyscale(crop)
        return np.ascontiguousarray(crop)


assert len(SIGNALS) == len(BLENDSHAPES) + len(MEASURED)
