"""The perceptual hash of a face: 63 bits, of which few change as long as the face looks the same."""

from __future__ import annotations

import cv2
import numpy as np

from streamgate.frames import Array
from streamgate.networks.alignment import ffhq_matrix

HASH_SIDE = 32
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.22, 0.78, 0.25, 0.85
"""The part of the FFHQ square that is hashed, as shares of the square's side: brows to chin, without hair and
background, so that the hash of a face hardly depends on the background."""


def hash_matrix(landmarks: Array) -> Array:
    """Matrix (2, 3) from source pixels to the 32 x 32 picture that `perceptual_hash` takes."""
    matrix = ffhq_matrix(landmarks, 1000)
    across, down = HASH_SIDE / (1000 * (_RIGHT - _LEFT)), HASH_SIDE / (1000 * (_BOTTOM - _TOP))
    # Pixel centres have integer coordinates, so the hashed part begins half a pixel before the centre of its first
    # pixel.
    scale = np.array([[across], [down]])
    corner = np.array([[1000 * _LEFT - 0.5], [1000 * _TOP - 0.5]])
    return np.hstack([matrix[:, :2] * scale, (matrix[:, 2:] - corner) * scale - 0.5])


def perceptual_hash(picture: Array) -> int:
    """63 bits of an RGB uint8 (32, 32, 3) picture; each bit tells whether one of the 63 lowest frequencies is above
    their median.

    The DCT hash of Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, without the
    constant component. Identical pictures give identical bits; pictures of different people share about half the
    bits.
    """
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    lowest = cv2.dct(luma)[:8, :8].ravel()[1:]
    above = lowest > np.median(lowest)
    return int("".join("1" if bit else "0" for bit in above), 2)
