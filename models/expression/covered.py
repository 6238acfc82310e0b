"""Training batches of covered and uncovered faces for the head `visible`. They depend only on seed and step."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from models.common.images import DataError
from models.expression.batches import Augmentation, Batches
from models.expression.covers import CELL, KINDS, Bank, cell_means, covered_share, draw, face_weights, paste
from models.expression.dataset import CANVAS, FaceSet, canvas_matrix, placed_points
from models.expression.faces import read_crops
from streamgate.networks.alignment import EXPRESSION_SIZE

CELLS = (EXPRESSION_SIZE[0] // CELL, EXPRESSION_SIZE[1] // CELL)
_FINGERS = ((0, 1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_PALM = (0, 1, 5, 9, 13, 17)
_FRAMES = 12
"""All frames of a clip together are sampled as often as this many stills."""
_FINGER_WIDTH = 0.24
"""Width of a finger, divided by the length of the palm."""
_HARD = 6.0
"""Factor by which uncovered faces that the head once took for covered are sampled more often."""
_SEEN_SHARE = 0.1
"""Minimum covered share that is assumed for inspected faces: it is only known that they are covered."""


@dataclass(frozen=True)
class Share:
    """config.toml, [covers]: shares, 0..1.

    covered: crops with a pasted cover; twice: of these, crops with a second cover; real: crops that are frames with a
    real hand; seen: crops of inspected faces that are covered; shadow: pasted covers that cast a shadow.
    """

    covered: float
    twice: float
    real: float
    seen: float
    shadow: float


@dataclass(frozen=True)
class Seen:
    """looked_at.toml: inspected faces, by `face_key`, and clips; the comment in the file explains the lists."""

    covered: frozenset[str] = frozenset()
    bare: frozenset[str] = frozenset()
    unsure: frozenset[str] = frozenset()
    unsure_clips: frozenset[str] = frozenset()

    @classmethod
    def read(cls, file: Path) -> Seen:
        """Read the file. Raises DataError if the file cannot be read or has a list with another name."""
        try:
            return cls(**{name: frozenset(names) for name, names in tomllib.loads(file.read_text()).items()})
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{file}: {error}") from error


@dataclass(frozen=True)
class View:
    """A crop uint8 [144, 128, 3] with the covered share of its face.

    covered: covered share, 0..1; at_least: the share may be higher, and it is not known where the face is covered
    (cells and weight are 0). cells, weight: float32 [9, 8], the covered share of each cell, and how much of the cell is
    face.
    """

    crop: np.ndarray
    covered: float
    cells: np.ndarray = field(default_factory=lambda: np.zeros(CELLS, np.float32))
    weight: np.ndarray = field(default_factory=lambda: np.zeros(CELLS, np.float32))
    at_least: bool = False


def face_key(faces: FaceSet, index: int) -> str:
    """The name of a face in looked_at.toml: the file's name for a still, CLIP@SECONDS for a frame."""
    name, clip = faces.names[index], faces.clips[index]
    return f"{clip}@{name.rsplit('@', 1)[-1]}" if clip else name


def hand_masks(bases: Sequence[Path], faces: FaceSet) -> dict[int, np.ndarray]:
    """Masks uint8 [188, 172] on the canvas, 255 where a hand is, of the faces with hands that hands.py found.

    Keys are indices into `faces`. Clips without NAME.hands.npz have no masks.
    """
    index_of = {(clip, name): i for i, (clip, name) in enumerate(zip(faces.clips, faces.names, strict=True))}
    masks: dict[int, np.ndarray] = {}
    for base in bases:
        found = base.with_name(base.name + ".hands.npz")
        if not found.is_file():
            continue
        index, _ = read_crops(base)
        with np.load(found, allow_pickle=False) as arrays:
            crops, joints = arrays["faces"], arrays["points"]
        for number, hand in zip(crops, joints, strict=True):
            face = index_of.get((index["clips"][number], index["names"][number]))
            if face is None:
                continue
            matrix = canvas_matrix(np.array(index["landmarks"][number]))
            mask = masks.setdefault(face, np.zeros(CANVAS, np.uint8))
            draw_hand(mask, placed_points(hand, matrix))
    return masks


def draw_hand(mask: np.ndarray, joints: np.ndarray) -> None:
    """Draw a hand with joints [21, 2] into a mask, in place: the palm, fingers of typical width, and the wrist."""
    length = float(np.hypot(*(joints[9] - joints[0])))
    width = max(2, round(_FINGER_WIDTH * length))
    whole = np.clip(np.round(joints), -2000, 2000).astype(np.int32)
    cv2.fillConvexPoly(mask, cv2.convexHull(whole[list(_PALM)]), 255)
    for finger in _FINGERS:
        cv2.polylines(mask, [whole[list(finger)]], False, 255, width)
    arm = joints[0] + (joints[0] - joints[9]) * 0.8
    cv2.line(mask, tuple(map(int, whole[0])), tuple(map(int, np.clip(arm, -2000, 2000))), 255, round(0.6 * length))


class CoveredBatches(Batches):
    """Map-style data set: `batches[step]` is a dict of the arrays of `View`.

    face: uint8 [N, 144, 128, 3] RGB; covered: float32 [N]; at_least: bool [N]; cells, weight: float32 [N, 9, 8].
    """

    def __init__(
        self,
        faces: FaceSet,
        indexes: Sequence[int] | np.ndarray,
        size: int,
        augmentation: Augmentation,
        seed: int,
        share: Share,
        bank: Bank,
        masks: dict[int, np.ndarray],
        seen: Seen,
    ) -> None:
        """masks: from `hand_masks`; faces with a mask are not used as uncovered faces, as the masks are inaccurate.

        Raises DataError if there are no uncovered faces.
        """
        keys = {int(i): face_key(faces, int(i)) for i in indexes}
        doubtful = seen.covered | seen.unsure
        bare = np.array([
            i for i in indexes
            if int(i) not in masks and keys[int(i)] not in doubtful and faces.clips[i] not in seen.unsure_clips
        ])  # fmt: skip
        if not len(bare):
            raise DataError("every face is covered or has a hand in front of it: uncovered faces are needed, too")
        super().__init__(faces, bare, size, augmentation, seed)
        self.bare = bare
        # Many people show more kinds of things that are not occluders (beards, glasses, shadows) than many frames of
        # one person.
        sizes = Counter(faces.clips[i] for i in bare)
        often = np.array([min(1.0, _FRAMES / sizes[faces.clips[i]]) if faces.clips[i] else 1.0 for i in bare])
        often *= np.array([_HARD if keys[int(i)] in seen.bare else 1.0 for i in bare])
        self._likely = often / often.sum()
        self._share, self._bank = share, bank
        chosen = set(map(int, indexes))
        self._real = {i: mask for i, mask in masks.items() if i in chosen}
        self._handed = np.array(sorted(self._real))
        self._seen = np.array([i for i, key in keys.items() if key in seen.covered])
        self._kinds = list(KINDS)
        self._odds = np.array([KINDS[kind][1] for kind in self._kinds])

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self._seed, step))
        bare = rng.choice(self._indexes, self._size, p=self._likely)
        views = [self.covered_view(int(i), rng) for i in bare]
        return {
            "face": np.stack([view.crop for view in views]),
            "covered": np.array([view.covered for view in views], np.float32),
            "at_least": np.array([view.at_least for view in views]),
            "cells": np.stack([view.cells for view in views]).astype(np.float32),
            "weight": np.stack([view.weight for view in views]).astype(np.float32),
        }

    def covered_view(self, index: int, rng: np.random.Generator, kind: str | None = None) -> View:
        """A face with or without cover.

        kind: the kind of cover to draw, "" for none; None for a random choice, which includes really covered faces.
        """
        how = self._share
        if kind is None and len(self._handed) and rng.random() < how.real:
            return self._real_view(int(rng.choice(self._handed)), rng)
        if kind is None and len(self._seen) and rng.random() < how.seen:
            crop = self._placed(int(rng.choice(self._seen)), rng).crop
            return View(self._coloured(crop, rng), _SEEN_SHARE, at_least=True)
        placed = self._placed(index, rng)
        crop, weights = placed.crop, face_weights(placed.points)
        hidden = np.zeros(EXPRESSION_SIZE, np.float32)
        count = int(kind != "") if kind is not None else int(rng.random() < how.covered)
        count += int(count and kind is None and rng.random() < how.twice)
        for _ in range(count):
            drawn = kind or self._kinds[int(rng.choice(len(self._kinds), p=self._odds / self._odds.sum()))]
            layer = draw(crop, placed.points, rng, self._bank, drawn)
            shadow = float(rng.uniform(0, 0.5)) if rng.random() < how.shadow else 0.0
            crop = paste(crop, layer, shadow)
            hidden = np.maximum(hidden, layer.alpha)
        return self._told(crop, hidden, weights, rng)

    def _real_view(self, index: int, rng: np.random.Generator) -> View:
        placed = self._placed(index, rng)
        mask = cv2.warpAffine(self._real[index], placed.matrix, EXPRESSION_SIZE[::-1]).astype(np.float32) / 255
        return self._told(placed.crop, mask, face_weights(placed.points), rng)

    def _told(self, crop: np.ndarray, hidden: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> View:
        cells = cell_means(weights)
        share = cell_means(hidden * weights) / np.maximum(cells, 1e-3)
        return View(self._coloured(crop, rng), covered_share(hidden, weights), share, np.minimum(cells, 1.0))
