"""Crops as image files; equal pixels give equal bytes."""

from __future__ import annotations

import cv2
import numpy as np

from streamgate.frames import Array


def encode_png(image: Array) -> bytes:
    """`image` RGB uint8 (H, W, 3) as a lossless PNG."""
    return _encode(".png", image, [])


def encode_jpeg(image: Array, quality: int) -> bytes:
    """`image` RGB uint8 (H, W, 3) as a JPEG of `quality` 1..100."""
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode(extension: str, image: Array, options: list[int]) -> bytes:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"a crop must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
    done, data = cv2.imencode(extension, np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise ValueError(f"OpenCV could not encode a crop of {image.shape} as {extension}")
    return data.tobytes()
