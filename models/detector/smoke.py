"""Synthetic training pictures for smoke runs, made from the portrait that scikit-image contains."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from models.common.images import write_rgb


def synthetic_pictures(folder: Path, count: int = 12) -> tuple[Path, Path]:
    """Write `count` variations of the portrait and as many textures without faces; returns the two folders."""
    from skimage import data

    faces, empty = folder / "faces", folder / "empty"
    portrait = data.astronaut()
    rng = np.random.default_rng(0)
    for place in (faces, empty):
        place.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        side = int(rng.integers(200, 400))
        picture = cv2.resize(portrait[:300, 100:400], (side, side), interpolation=cv2.INTER_AREA)
        picture = np.clip(picture * rng.uniform(0.8, 1.15, 3), 0, 255).astype(np.uint8)
        write_rgb(faces / f"{i:03d}.png", picture[:, ::-1] if i % 2 else picture)
        coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        write_rgb(empty / f"{i:03d}.png", cv2.resize(coarse, (240, 180), interpolation=cv2.INTER_CUBIC))
    return faces, empty
