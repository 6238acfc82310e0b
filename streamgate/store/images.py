"""Encodes crops as image files and decodes them; identical pixels give identical bytes."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

from streamgate.frames import Array
from streamgate.image_size import image_size
from streamgate.tracks import Encoding

JPEG_QUALITY = 92
"""Quality of the JPEG in a `final` event."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_PIXELS = 1 << 24
"""Upper bound of the number of pixels of a crop in any configuration."""


def encode_png(image: Array) -> bytes:
    """Encode `image`, RGB uint8 (H, W, 3), as a lossless PNG."""
    return _encode(".png", image, [])


def decode_png(data: bytes) -> Array:
    """Decode a crop written by `encode_png` to RGB uint8 (H, W, 3).

    Raises a ValueError that names the problem. All checksums are verified, because decoders fill in missing data
    without an error.
    """
    if not data.startswith(_SIGNATURE):
        raise ValueError("is empty" if not data else "is not a PNG")
    offset, header, ended = len(_SIGNATURE), b"", False
    while not ended:
        if len(data) < offset + 12:
            raise ValueError("is cut off")
        length, kind = struct.unpack_from(">I4s", data, offset)
        body = data[offset + 8 : offset + 8 + length]
        if len(data) < offset + 12 + length:
            raise ValueError("is cut off")
        if struct.unpack_from(">I", data, offset + 8 + length)[0] != zlib.crc32(kind + body):
            raise ValueError("is damaged")
        header = header or body
        ended = kind == b"IEND"
        offset += 12 + length
    if len(header) != 13:
        raise ValueError("is damaged")
    width, height, depth, colours = struct.unpack_from(">IIBB", header)
    if (depth, colours) != (8, 2) or not 0 < width * height <= _MAX_PIXELS:
        raise ValueError(f"was not written by streamgate ({width} x {height} px, {depth} bit, colour type {colours})")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        bgr = None
    if bgr is None or bgr.shape != (height, width, 3):
        raise ValueError("is damaged")
    return np.ascontiguousarray(bgr[..., ::-1])


def decode_crop(data: bytes) -> Array:
    """Decode a crop written by `encode` to RGB uint8 (H, W, 3). Raises a ValueError that names the problem."""
    jpeg = data.startswith(b"\xff\xd8\xff")
    webp = data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    if not jpeg and not webp:
        return decode_png(data)
    # This is checked here, because decoders fill in missing data without an error.
    if (jpeg and not data.endswith(b"\xff\xd9")) or (webp and struct.unpack_from("<I", data, 4)[0] + 8 != len(data)):
        raise ValueError("is cut off")
    size = image_size(data)
    if size is None or not 0 < size[0] * size[1] <= _MAX_PIXELS:
        raise ValueError("was not written by streamgate")
    return decode(data)


def encode_jpeg(image: Array, quality: int) -> bytes:
    """Encode `image`, RGB uint8 (H, W, 3), as a JPEG of `quality` 1..100."""
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode(image: Array, encoding: Encoding) -> bytes:
    """Encode `image`, RGB uint8 (H, W, 3), in the format and with the quality of `encoding`."""
    if encoding.format == "jpeg":
        return encode_jpeg(image, encoding.quality or 100)
    if encoding.format == "webp":
        # OpenCV writes lossless WebP if the quality is above 100.
        return _encode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, encoding.quality or 101])
    return encode_png(image)


def decode(data: bytes) -> Array:
    """Decode the output of `encode` to RGB uint8 (H, W, 3). Raises ValueError if it is damaged."""
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        picture = None
    if picture is None:
        raise ValueError("is damaged")
    return np.ascontiguousarray(picture[..., ::-1])


def _encode(extension: str, image: Array, options: list[int]) -> bytes:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"a crop must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
    done, data = cv2.imencode(extension, np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise ValueError(f"OpenCV could not encode a crop of {image.shape} as {extension}")
    return data.tobytes()
