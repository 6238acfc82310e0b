"""What picture files say about their size, without decoding them."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamgate.errors import SourceError
from streamgate.image_size import image_size
from streamgate.sources.images import read_rgb
from support.hostile_pictures import giant_png

PIL = pytest.importorskip("PIL.Image", reason="Pillow makes the pictures")


def saved(form: str, size: tuple[int, int] = (37, 23), mode: str = "RGB", **options: Any) -> bytes:
    buffer = BytesIO()
    PIL.new(mode, size).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form, options", [
    ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}), ("TIFF", {}), ("TIFF", {"big_tiff": True}), ("BMP", {}),
    ("GIF", {}), ("PPM", {}), ("JPEG2000", {}), ("JPEG2000", {"no_jp2": True}), ("AVIF", {}),
])  # fmt: skip
def test_every_accepted_format_tells_its_size(form: str, options: dict[str, Any]) -> None:
    try:
        content = saved(form, **options)
    except (KeyError, OSError) as error:
        pytest.skip(f"this Pillow cannot write {form}: {error}")
    assert image_size(content) == (37, 23)


def test_the_comments_of_a_ppm_are_passed_over() -> None:
    assert image_size(b"P5 # made by\n# hand\n640 #wide\n480\n255\n") == (640, 480)
    assert image_size(b"P7\nWIDTH 5\nHEIGHT 4\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n") == (5, 4)


def test_a_bmp_from_the_top_down_has_a_positive_height() -> None:
    content = bytearray(saved("BMP"))
    content[22:26] = struct.pack("<i", -23)
    assert image_size(bytes(content)) == (37, 23)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"])
def test_a_header_cut_off_anywhere_is_no_error(form: str) -> None:
    content = saved(form)
    for length in range(min(len(content), 700)):
        assert image_size(content[:length]) in (None, (37, 23))


@pytest.mark.parametrize("content", [
    b"", b"\xff\xd8\xff", b"\xff\xd8" + b"\xff" * 100_000, b"\xff\xd8\xff\xe0\0\0" * 20_000, b"II*\0\x08\0\0\0\xff\xff",
    b"MM\0*\0\0\0\x08" + b"\0\0\0\0\0\x08" * 10, b"\0\0\0\x18ftypavif" + b"\0\0\0\x01moov" * 5000,
    b"\0\0\0\x18ftypavif" + b"\0\0\0\x08meta" * 50_000, b"P6\n" + b"# x\n" * 100_000, b"\x76\x2f\x31\x01", b"<svg/>",
])  # fmt: skip
def test_damage_ends_soon_and_quietly(content: bytes) -> None:
    assert image_size(content) is None


def test_what_is_not_known_or_too_large_never_reaches_a_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("a decoder was asked")

    monkeypatch.setattr(cv2, "imdecode", decode)
    path = tmp_path / "picture.png"
    for content, words in (
        (b"\x76\x2f\x31\x01" + bytes(100), "not a picture"),
        (b"", "empty"),
        (giant_png(17_000, 8_704), "17000 x 8704 pixels"),
    ):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=words):
            read_rgb(path)


def test_large_pictures_keep_their_colours(tmp_path: Path) -> None:
    # Colours are exchanged strip by strip.
    picture = np.random.default_rng(0).integers(0, 256, (700, 30, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., ::-1])
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), picture)


def test_a_cmyk_picture_shows_its_colours(tmp_path: Path) -> None:
    PIL.new("RGB", (64, 64), (200, 30, 60)).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    shown = read_rgb(tmp_path / "print.jpg").reshape(-1, 3).mean(axis=0)
    assert np.abs(shown - (200, 30, 60)).max() < 12
