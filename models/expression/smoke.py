"""Labelled crops for smoke runs: one public portrait, shifted and with changed tones, and meaningless labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.common.smoke import ASTRONAUT_LANDMARKS
from models.expression.covers import Bank
from models.expression.faces import Crops, loose_crop

_EYES = {33: (-12, 0), 133: (12, 0), 362: (-12, 0), 263: (12, 0)}
"""Corners of the viewer's left and right eye, relative to the middle of the eye, in pixels of the portrait."""


def synthetic_crops(folder: Path, count: int = 24) -> None:
    """Write `count` crops and labels in the form of faces.py and teacher.py; half of them are frames of two clips."""
    from skimage import data

    picture, rng = data.astronaut(), np.random.default_rng(0)
    box = (165.0, 45.0, 285.0, 185.0)
    crops, points = Crops(), []
    for i in range(count):
        levels = np.clip(picture * rng.uniform(0.75, 1.2) + rng.normal(0, 10), 0, 255).astype(np.uint8)
        shift = rng.normal(0, 6, 2)
        place = (box[0] + shift[0], box[1] + shift[1], box[2] + shift[0], box[3] + shift[1])
        crop, landmarks = loose_crop(levels, place, ASTRONAUT_LANDMARKS)
        name = f"face{i}" if i % 2 else f"clip{i % 4}@{i}"
        crops.add(name, "" if i % 2 else f"clip{i % 4}", (crop, landmarks, 46.0))
        mesh = landmarks.mean(axis=0) + rng.normal(0, 25, (478, 2))
        for number, offset in _EYES.items():
            mesh[number] = landmarks[0 if number < 200 else 1] + np.array(offset)
        points.append(np.column_stack([mesh, np.zeros(478)]))
    crops.save(folder / "synthetic")
    np.savez(
        folder / "synthetic.npz",
        points=np.array(points, np.float32),
        blendshapes=rng.uniform(0, 1, (count, 52)).astype(np.float32),
        pose=rng.normal(0, 10, (count, 3)).astype(np.float32),
    )


def synthetic_bank() -> Bank:
    """Occluders for smoke runs: a box with an arm as a hand, and coloured noise as objects."""
    rng = np.random.default_rng(0)
    hand = np.zeros((100, 100, 4), np.uint8)
    hand[20:, 35:65] = (200, 150, 120, 255)
    return Bank(hand[None], rng.integers(0, 256, (2, 160, 160, 3), dtype=np.uint8))
