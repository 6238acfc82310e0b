"""Turns photographs into paintings and drawings, to get faces that are sharp and clean but not photographs.

Pictures are uint8 [H, W, 3] RGB.
"""

from __future__ import annotations

import cv2
import numpy as np

from models.common.severity import Picture


def draw_painting(picture: Picture, rng: np.random.Generator) -> Picture:
    """One of four styles with random parameters: soft brush, oil, cel, pencil."""
    match int(rng.integers(4)):
        case 0:
            return cv2.stylization(picture, None, float(rng.uniform(8, 60)), float(rng.uniform(0.15, 0.5)))
        case 1:
            return oil(picture, int(rng.integers(2, 5)))
        case 2:
            return cel(picture, int(rng.integers(5, 14)), float(rng.uniform(0.3, 1.0)))
    grey, coloured = cv2.pencilSketch(
        picture, None, None, float(rng.uniform(15, 60)), float(rng.uniform(0.05, 0.1)), float(rng.uniform(0.02, 0.05))
    )
    return coloured if rng.random() < 0.6 else cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


def oil(picture: Picture, radius: int) -> Picture:
    """Kuwahara filter: of the four squares around a pixel, the mean of the one with the lowest variance is used."""
    values = picture.astype(np.float32)
    luma = values.mean(axis=2)
    side = 2 * radius + 1
    mean = cv2.blur(values, (side, side))
    spread = cv2.blur(luma * luma, (side, side)) - cv2.blur(luma, (side, side)) ** 2
    corners = [(dy, dx) for dy in (-radius, radius) for dx in (-radius, radius)]
    spreads = np.stack([np.roll(spread, corner, (0, 1)) for corner in corners])
    calmest = spreads.argmin(axis=0)[..., None]
    out = np.select([calmest == i for i in range(4)], [np.roll(mean, corner, (0, 1)) for corner in corners])
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def cel(picture: Picture, levels: int, ink: float) -> Picture:
    """Flat areas of few brightness levels with dark outlines, like an animation cel; ink: strength of the outlines."""
    flat = picture
    for _ in range(3):
        flat = cv2.bilateralFilter(flat, 7, 40, 4)
    hsv = cv2.cvtColor(flat, cv2.COLOR_RGB2HSV)
    step = 255.0 / (levels - 1)
    hsv[..., 2] = np.clip(np.round(hsv[..., 2] / step) * step, 0, 255).astype(np.uint8)
    hsv[..., 1] = np.clip(hsv[..., 1] * 1.25, 0, 255).astype(np.uint8)
    flat = cv2.GaussianBlur(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), (0, 0), 0.6)
    luma = cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY).astype(np.float32)
    lines = np.clip(cv2.GaussianBlur(luma, (0, 0), 2.0) - cv2.GaussianBlur(luma, (0, 0), 0.8) - 3, 0, 12) / 12
    return np.clip(flat * (1 - ink * lines[..., None]) + 0.5, 0, 255).astype(np.uint8)
