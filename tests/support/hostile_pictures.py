"""Pictures that are broken, lie about their size, or are merely unusual. Needs Pillow (it comes with scikit-image)."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from support.hostile import Hostile, Make
from support.hostile_videos import data, face


def _face() -> np.ndarray:
    return face(1, (640, 480))[0]


def pillow(form: str, mode: str = "RGB", **options: Any) -> Make:
    """The face saved by Pillow, in another mode if wanted."""

    def make(path: Path) -> None:
        from PIL import Image

        Image.fromarray(_face()).convert(mode).save(path, form, **options)

    return make


def animated(form: str, **options: Any) -> Make:
    def make(path: Path) -> None:
        from PIL import Image

        first, *rest = (Image.fromarray(one) for one in face(4, (640, 480)))
        first.save(path, form, save_all=True, append_images=rest, duration=40, **options)

    return make


def sixteen_bit(path: Path) -> None:
    picture = cv2.cvtColor(_face(), cv2.COLOR_RGB2BGR).astype(np.uint16) * 257
    done, content = cv2.imencode(path.suffix, picture)
    assert done
    path.write_bytes(content.tobytes())


def png(width: int, height: int, rows: bytes, depth: int = 1) -> bytes:
    """A PNG of that size, grey; `rows` is compressed as it is."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def giant_png(width: int, height: int) -> bytes:
    """A true picture, all black: small in the file, huge in memory."""
    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def lying(form: str) -> bytes:
    """A picture of 16 x 16 pixels whose header says much more."""
    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, form)
    content = bytearray(buffer.getvalue())
    if form == "JPEG":
        index = content.find(b"\xff\xc0")
        content[index + 5 : index + 9] = struct.pack(">HH", 65_500, 65_500)
    elif form == "BMP":
        content[18:26] = struct.pack("<ii", 30_000, 30_000)
    elif form == "TIFF":
        for tag in (256, 257):
            index = content.find(struct.pack("<HH", tag, 4))
            index = content.find(struct.pack("<HH", tag, 3)) if index < 0 else index
            content[index : index + 12] = struct.pack("<HHII", tag, 4, 1, 30_000)
    elif form == "WEBP":
        index = content.find(b"VP8 ") + 8 + 6
        content[index : index + 4] = struct.pack("<HH", 16_383, 16_383)
    elif form == "PPM":
        content = bytearray(b"P6\n30000 30000\n255\n" + bytes(768))
    return bytes(content)


NO_PICTURE = "not a picture|damaged|empty"

BROKEN = [
    Hostile("zero.png", "empty file named .png", data(b""), NO_PICTURE),
    Hostile("text.jpg", "text named .jpg", data(b"no picture at all\n" * 20), NO_PICTURE),
    Hostile("cut.png", "PNG cut off after its header", data(lambda: png(64, 64, bytes(576), 1)[:40]), NO_PICTURE),
    Hostile("exr.png", "OpenEXR named .png", data(b"\x76\x2f\x31\x01" + bytes(200)), NO_PICTURE),
]  # fmt: skip

UNUSUAL = [
    Hostile("deep.png", "16-bit PNG", sixteen_bit),
    Hostile("deep.tiff", "16-bit TIFF", sixteen_bit),
    Hostile("print.jpg", "CMYK JPEG", pillow("JPEG", "CMYK", quality=95)),
    Hostile("grey.png", "grey PNG with alpha", pillow("PNG", "LA")),
    Hostile("palette.png", "palette PNG", pillow("PNG", "P")),
    Hostile("animated.webp", "animated WebP", animated("WEBP", quality=90)),
    Hostile("animated.png", "animated PNG", animated("PNG")),
    Hostile("pages.tiff", "TIFF with four pages", animated("TIFF")),
    Hostile("one.png", "1 x 1 picture", data(lambda: png(1, 1, b"\0\x80", 8))),
    Hostile("wide.png", "20,000 x 400 picture", data(lambda: giant_png(20_000, 400))),
]

LIES = [
    Hostile("giant.png", "PNG of 50 kB with 20,000 x 20,000 px", data(lambda: giant_png(20_000, 20_000)), "pixels"),
    Hostile("lie.png", "PNG header that claims 60,000 x 60,000 px", data(lambda: png(60_000, 60_000, b"\0")), "pixels"),
    Hostile("lie.jpg", "JPEG header that claims 65,500 x 65,500 px", data(lambda: lying("JPEG")), "pixels"),
    Hostile("lie.bmp", "BMP header that claims 30,000 x 30,000 px", data(lambda: lying("BMP")), "pixels"),
    Hostile("lie.tiff", "TIFF header that claims 30,000 x 30,000 px", data(lambda: lying("TIFF")), "pixels"),
    Hostile("lie.webp", "WebP header that claims 16,383 x 16,383 px", data(lambda: lying("WEBP")), "pixels"),
    Hostile("lie.ppm", "PPM header that claims 30,000 x 30,000 px", data(lambda: lying("PPM")), "pixels"),
]
