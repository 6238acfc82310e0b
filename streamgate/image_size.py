"""Reads the size that a picture file declares, before anything is decoded.

A few bytes can declare any number of pixels, and decoders trust the declared size. A file of an unknown format is never
passed to a decoder, because OpenCV detects formats by content and supports many more formats than are needed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

_MAX_PARTS = 10_000
"""Maximum number of segments, boxes or directory entries to examine, because a damaged file may contain millions of
empty ones."""
_PNM = re.compile(rb"P[1-6](?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,9})\s")
_PAM = re.compile(rb"P7\n(?:[^\n]*\n){0,20}?WIDTH +(\d{1,9})\n(?:[^\n]*\n){0,20}?HEIGHT +(\d{1,9})\n")


def image_size(data: bytes) -> tuple[int, int] | None:
    """The declared width and height in pixels of the picture file `data`, which may be truncated.

    If the file has several pictures, returns the size of the largest one. Returns None if the format is unknown or
    `data` ends before the declared size. Known formats: JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, AVIF, HEIC and
    PBM/PGM/PPM/PAM.
    """
    for magic, read in _FORMATS:
        if magic.match(data):
            try:
                return read(data)
            except (struct.error, IndexError, ValueError, OverflowError):
                return None
    return None


def _png(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR":
        return None
    return _pair(">II", data, 16)


def _gif(data: bytes) -> tuple[int, int] | None:
    return _pair("<HH", data, 6)


def _bmp(data: bytes) -> tuple[int, int] | None:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        return _pair("<HH", data, 18)
    width, height = _pair("<ii", data, 18)
    return abs(width), abs(height)  # a negative height means top-down rows


def _jpeg(data: bytes) -> tuple[int, int] | None:
    position = 2
    for _ in range(_MAX_PARTS):
        if data[position] != 0xFF:
            position = data.find(b"\xff", position)  # padding, which decoders skip too
            if position < 0:
                return None
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = _pair(">HH", data, position + 5)
            return width, height
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            position += 2
        elif marker in (0xD9, 0xDA):
            return None
        else:
            position += 2 + max(2, struct.unpack_from(">H", data, position + 2)[0])
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return (width, height) if len(data) >= 30 else None
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = _pair("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    large = struct.unpack_from(order + "H", data, 2)[0] == 43  # BigTIFF
    start, entry, count = ("Q", "HHQ", "Q") if large else ("I", "HHI", "H")
    sizes = {1: "B", 3: "H", 4: "I", 16: "Q"}
    directory = struct.unpack_from(order + start, data, 8 if large else 4)[0]
    found: list[tuple[int, int]] = []
    seen: set[int] = set()
    while directory and directory not in seen and len(seen) < 100:
        seen.add(directory)
        entries = min(struct.unpack_from(order + count, data, directory)[0], _MAX_PARTS)
        position = directory + struct.calcsize(count)
        length = struct.calcsize("=" + entry) + struct.calcsize(start)
        tags: dict[int, int] = {}
        for _ in range(entries):
            tag, kind, _ = struct.unpack_from(order + entry, data, position)
            if tag in (256, 257) and kind in sizes:
                value = position + struct.calcsize("=" + entry)
                tags[tag] = struct.unpack_from(order + sizes[kind], data, value)[0]
            position += length
        if len(tags) == 2:
            found.append((tags[256], tags[257]))
        try:
            directory = struct.unpack_from(order + start, data, position)[0]
        except struct.error:
            break
    return max(found, key=_area, default=None)


def _jpeg2000(data: bytes) -> tuple[int, int] | None:
    if data[:4] == b"\xff\x4f\xff\x51":
        right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
        return right - left, bottom - top
    for kind, body in _boxes(data, 0, len(data), (b"jp2h",)):
        if kind == b"ihdr":
            height, width = _pair(">II", data, body)
            return width, height
    return None


def _avif(data: bytes) -> tuple[int, int] | None:
    inside = (b"meta", b"iprp", b"ipco", b"moov", b"trak")
    found: list[tuple[int, int]] = []
    for kind, body in _boxes(data, 0, len(data), inside):
        if kind == b"ispe":
            found.append(_pair(">II", data, body + 4))
        elif kind == b"tkhd":
            # In version 1, the time fields are longer. Width and height are 16.16 fixed-point numbers.
            width, height = _pair(">II", data, body + (88 if data[body] == 1 else 76))
            found.append((width >> 16, height >> 16))
    return max(found, key=_area, default=None)


def _boxes(data: bytes, start: int, end: int, inside: tuple[bytes, ...]) -> Iterator[tuple[bytes, int]]:
    """Yield the kind of each box and the position of its content; also enters boxes of the kinds `inside`."""
    open_spans = [(start, end)]
    for _ in range(_MAX_PARTS):
        if not open_spans:
            return
        position, end = open_spans.pop()
        if position + 8 > end:
            continue
        length, kind = struct.unpack_from(">I4s", data, position)
        body = position + 8
        if length == 1:
            length, body = struct.unpack_from(">Q", data, body)[0], body + 8
        stop = min(end, position + length) if length else end
        if stop < body:
            continue
        open_spans.append((stop, end))
        yield kind, body
        if kind in inside:
            open_spans.append((body + (4 if kind == b"meta" else 0), stop))


def _pnm(data: bytes) -> tuple[int, int] | None:
    found = (_PAM if data[:2] == b"P7" else _PNM).match(data[:4096])
    return (int(found.group(1)), int(found.group(2))) if found else None


def _pair(form: str, data: bytes, position: int) -> tuple[int, int]:
    first, second = struct.unpack_from(form, data, position)
    return first, second


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


_FORMATS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], tuple[int, int] | None]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
    (re.compile(rb"BM"), _bmp),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), _jpeg2000),
    (re.compile(rb".{4}ftyp(?:avif|avis|mif1|msf1|miaf|hei[cxms]|hev[cxms])", re.DOTALL), _avif),
    (re.compile(rb"P[1-7]\s"), _pnm),
)
