"""Masks of facial regions on FFHQ-aligned pictures, in which the alignment determines where the regions are."""

from __future__ import annotations

import cv2
import numpy as np

from models.common.align import FFHQ_EYES, FFHQ_MOUTH, FFHQ_NOSE

# centre x, centre y, half width, half height, as shares of the side
REGIONS: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "eyes": tuple((x, y, 0.085, 0.055) for x, y in FFHQ_EYES),
    "nose": ((FFHQ_NOSE[0], FFHQ_NOSE[1] - 0.02, 0.075, 0.085),),
    "mouth": ((*FFHQ_MOUTH, 0.12, 0.06),),
}


def region_mask(name: str, side: int, feather: float = 0.0) -> np.ndarray:
    """float32 [side, side] in 0..1: the ellipses of a named region, with edges softened over `feather` pixels."""
    return draw_parts(REGIONS[name], side, feather, ellipse=True)


def draw_parts(parts: tuple[tuple[float, ...], ...], side: int, feather: float, ellipse: bool) -> np.ndarray:
    """float32 [side, side]: a mask of ellipses or boxes, given as shares (cx, cy, half width, half height)."""
    mask = np.zeros((side, side), np.float32)
    for cx, cy, rx, ry in parts:
        centre, axes = (
            (round(cx * side), round(cy * side)),
            (max(1, round(rx * side)), max(1, round(ry * side))),
        )
        if ellipse:
            cv2.ellipse(mask, centre, axes, 0, 0, 360, 1.0, -1)
        else:
            corners = [(centre[0] + s * axes[0], centre[1] + s * axes[1]) for s in (-1, 1)]
            cv2.rectangle(mask, corners[0], corners[1], 1.0, -1)
    return cv2.GaussianBlur(mask, (0, 0), feather) if feather > 0 else mask


def draw_swap(rng: np.random.Generator, side: int) -> np.ndarray:
    """A random mask of eyes, nose and mouth or, in a quarter of the cases, of patches anywhere in the face."""
    jitter = rng.normal(0, 0.012, 2)
    grow = float(np.exp(rng.normal(0.1, 0.25)))
    if rng.random() < 0.25:
        parts = tuple(
            (*rng.uniform((0.3, 0.3), (0.7, 0.85)), *rng.uniform(0.05, 0.16, 2)) for _ in range(int(rng.integers(1, 3)))
        )
    else:
        names = [n for n in REGIONS if rng.random() < 0.5] or [list(REGIONS)[int(rng.integers(3))]]
        parts = tuple(
            (cx + jitter[0], cy + jitter[1], rx * grow, ry * grow) for n in names for cx, cy, rx, ry in REGIONS[n]
        )
    return draw_parts(parts, side, float(rng.uniform(0, 4)), ellipse=bool(rng.random() < 0.6))


def blend(base: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`other` where the mask is 1, `base` where the mask is 0; uint8 [H, W, 3]."""
    weight = mask[..., None]
    return (base + weight * (other.astype(np.float32) - base) + 0.5).astype(np.uint8)
