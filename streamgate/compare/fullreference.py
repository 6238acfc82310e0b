"""Measures that compare a picture with its reference: PSNR and SSIM of the luma."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streamgate.errors import SourceError
from streamgate.frames import Array

_WINDOW = 11
_SIGMA = 1.5
MAX_DB = 100.0
"""PSNR of two identical pictures."""


def psnr(picture: Array, reference: Array) -> float:
    """Peak signal-to-noise ratio, in dB, of the luma of two RGB uint8 (H, W, 3) pictures."""
    one, other = _lumas(picture, reference)
    error = float(np.mean((one - other) ** 2))
    return min(MAX_DB, 10.0 * float(np.log10(255.0**2 / error))) if error > 0 else MAX_DB


def ssim(picture: Array, reference: Array) -> float:
    """Structural similarity (Wang et al. 2004, Gaussian window of 11 pixels) of the luma of two pictures, at most 1."""
    import cv2

    one, other = _lumas(picture, reference)
    if min(one.shape) < _WINDOW:
        raise SourceError(f"SSIM needs pictures of at least {_WINDOW} x {_WINDOW} pixels")

    def soft(pixels: Array) -> Array:
        blurred = cv2.GaussianBlur(pixels, (_WINDOW, _WINDOW), _SIGMA)
        half = _WINDOW // 2
        return np.asarray(blurred[half:-half, half:-half])

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean, theirs = soft(one), soft(other)
    variance, other_variance = soft(one * one) - mean**2, soft(other * other) - theirs**2
    shared = soft(one * other) - mean * theirs
    found = (2 * mean * theirs + c1) * (2 * shared + c2)
    found /= (mean**2 + theirs**2 + c1) * (variance + other_variance + c2)
    return float(found.mean())


FULL_REFERENCE: dict[str, Callable[[Array, Array], float]] = {"psnr": psnr, "ssim": ssim}


def _lumas(picture: Array, reference: Array) -> tuple[Array, Array]:
    import cv2

    if picture.shape != reference.shape:
        sizes = " and ".join(f"{one.shape[1]}x{one.shape[0]}" for one in (picture, reference))
        raise SourceError(f"the picture and its reference differ in size ({sizes})")
    one, other = (cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float64) for pixels in (picture, reference))
    return one, other
