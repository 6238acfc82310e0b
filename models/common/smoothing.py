"""Smoothing as in beauty filters and cameras: skin looks like plastic, and edges stay sharp.

Pictures are uint8 [H, W, 3] RGB; `shape` in 0..1 selects the filter, and `seed` its size.
"""

from __future__ import annotations

import cv2
import numpy as np

from models.common.severity import Picture, geometric


def smooth(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """Guided filter, frequency separation, repeated bilateral or edge-preserving filter, from light to heavy."""
    if shape < 0.4:
        filtered = guided(picture, 3 + seed % 6, geometric(4.0, 40.0, t))
        if seed // 8 % 2:  # half of the variants are not mixed with the original
            return filtered
        return cv2.addWeighted(filtered, 0.5 + 0.5 * t, picture, 0.5 - 0.5 * t, 0)
    if shape < 0.75:
        return frequency_separation(picture, 0.8 + 0.2 * (seed % 4), 3.0 + seed // 4 % 5, geometric(0.25, 1.0, t))
    if shape < 0.92:
        filtered = picture
        for _ in range(2):
            filtered = cv2.bilateralFilter(filtered, 5 + 2 * (seed % 2), geometric(10, 70, t), geometric(1.5, 5, t))
        return cv2.addWeighted(filtered, 0.6 + 0.4 * t, picture, 0.4 - 0.4 * t, 0)
    return cv2.edgePreservingFilter(picture, None, cv2.RECURS_FILTER, geometric(3, 40, t), geometric(0.06, 0.4, t))


def guided(picture: Picture, radius: int, spread: float) -> Picture:
    """Guided filter of the picture by itself (He et al. 2010); spread: levels below which a change is smoothed away."""
    size = (2 * radius + 1, 2 * radius + 1)
    values = picture.astype(np.float32)
    mean = cv2.blur(values, size)
    variance = cv2.blur(values * values, size) - mean * mean
    slope = variance / (variance + spread**2)
    out = cv2.blur(slope, size) * values + cv2.blur(mean * (1 - slope), size)
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def frequency_separation(picture: Picture, fine: float, coarse: float, share: float) -> Picture:
    """Remove `share` of the difference of two Gaussian blurs (sigma in pixels), except near strong edges.

    Pores and fine lines stay; blotches and wrinkles are removed. Retouchers do the same by hand.
    """
    values = picture.astype(np.float32)
    band = cv2.GaussianBlur(values, (0, 0), fine) - cv2.GaussianBlur(values, (0, 0), coarse)
    edges = cv2.GaussianBlur(np.abs(band).max(axis=2), (0, 0), 2.0)[..., None]
    return np.clip(values - share * band * np.exp(-((edges / 18.0) ** 2)) + 0.5, 0, 255).astype(np.uint8)
