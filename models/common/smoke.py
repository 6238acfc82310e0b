"""Synthetic training faces for smoke runs, made from the portrait that scikit-image contains."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from models.common.align import align_ffhq
from models.common.images import write_rgb

# Landmarks of the face in skimage.data.astronaut() (512x512).
ASTRONAUT_LANDMARKS = np.array([[203, 101], [247, 103], [227, 127], [205, 142], [243, 142]], np.float32)


def astronaut_face(side: int = 256) -> np.ndarray:
    """uint8 [side, side, 3] RGB, FFHQ-aligned; public domain (NASA)."""
    from skimage import data

    return align_ffhq(data.astronaut(), ASTRONAUT_LANDMARKS, side)


def synthetic_faces(folder: Path, count: int = 20, side: int = 256) -> Path:
    """Write `count` variations of the astronaut's face (rotated, mirrored, with other tones) as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    face = astronaut_face(side)
    rng = np.random.default_rng(0)
    for i in range(count):
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.normal(0, 8)), float(rng.uniform(0.9, 1.2)))
        picture = cv2.warpAffine(face, turn, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        levels = np.clip(picture * rng.uniform(0.75, 1.2, 3) + rng.normal(0, 10), 0, 255).astype(np.uint8)
        write_rgb(folder / f"{i:03d}.png", levels[:, ::-1] if i % 2 else levels)
    return folder
