"""Detects encrypted video, which FFmpeg decodes to noise or not at all, without reporting the reason."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from streamgate.sources.remote import AnyPath, RemoteReader

ENCRYPTED = "the video is encrypted; give an unprotected copy"
"""The error message for an encrypted file."""

_MAX_BOXES = 20_000
_HEAD = 1 << 20
_ENTRIES = 8  # bytes of a sample description box before its entries
_WALKED = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_VISUAL = 78
"""Bytes of a visual sample entry before its child boxes."""
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_ENCRYPTION = (
    bytes.fromhex("fbb31122 23bdd211 b4b700a0 c955fc6e"), bytes.fromhex("14e68a29 22260a17 b935dae0 7ee9289c"),
)  # fmt: skip
_EBML = b"\x1a\x45\xdf\xa3"
_MATROSKA_ENCRYPTION = b"\x50\x35"  # the ContentEncryption element
_PACKET, _SYNC = 188, 0x47
_SHARE_SCRAMBLED = 0.05


def is_encrypted(path: AnyPath, track: int | None) -> bool:
    """Whether the header of an MP4, Matroska or ASF file says that its video is encrypted. Never raises.

    Args:
        path: the file.
        track: id of the video track in an MP4; None for any track.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            if head[4:8] in (b"ftyp", b"moov", b"free", b"wide", b"mdat", b"skip", b"styp"):
                return _mp4_track_is(file, path.stat().st_size, track)
            file.seek(0)
            if head.startswith(_EBML):
                return _MATROSKA_ENCRYPTION in _matroska_encodings(file.read(_HEAD))
            if head == _ASF_HEADER:
                begin = file.read(_HEAD)
                return any(guid in begin for guid in _ASF_ENCRYPTION)
    except (OSError, struct.error):
        return False
    return False


def is_scrambled(path: AnyPath) -> bool:
    """Whether a transport stream or a program stream that yields no picture is scrambled, as pay TV and DVDs are.

    Only the first MiB is read. Never raises.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_HEAD)
    except OSError:
        return False
    if data[:1] == b"\x47" and data[_PACKET : _PACKET + 1] == b"\x47":
        packets = [data[at : at + 4] for at in range(0, len(data) - _PACKET, _PACKET)]
        scrambled = sum(one[0] == _SYNC and one[3] >> 6 >= 2 for one in packets)
        return scrambled > _SHARE_SCRAMBLED * len(packets)
    if data.startswith(b"\0\0\1\xba"):
        # In the header of each video packet, the two bits after the marker bits say whether the packet is scrambled.
        starts = [data[at + 6] for at in _all_of(data, b"\0\0\1\xe0") if at + 6 < len(data)]
        marked = [one for one in starts if one >> 6 == 2]
        return bool(marked) and sum(one >> 4 & 3 > 0 for one in marked) > 0.5 * len(marked)
    return False


def _mp4_track_is(file: BinaryIO | RemoteReader, size: int, track: int | None) -> bool:
    """Whether the sample entry of a video track has the encrypted type or contains protection information."""
    kind_of: dict[int, bytes] = {}
    current, handler = 0, b""
    for kind, body, end in _boxes(file, size):
        if kind == b"trak":
            current, handler = body, b""
        elif kind == b"tkhd":
            file.seek(body)
            data = file.read(24)
            kind_of[current] = data[20:24] if data[0] == 1 else data[12:16]
        elif kind == b"hdlr" and not handler:
            file.seek(body + 8)
            handler = file.read(4)
        elif kind == b"stsd":
            number = int.from_bytes(kind_of.get(current, b""))
            if handler in (b"vide", b"") and (track is None or number == track) and _is_protected(file, body, end):
                return True
    return False


def _is_protected(file: BinaryIO | RemoteReader, body: int, end: int) -> bool:
    file.seek(body)
    data = file.read(min(end - body, _HEAD))
    at = _ENTRIES
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        inside = data[at + 8 + _VISUAL : at + max(8, length)]
        if kind == b"encv" or (b"sinf" in inside and (b"tenc" in inside or b"schm" in inside)):
            return True
        if length < 8:
            return False
        at += length
    return False


def _boxes(file: BinaryIO | RemoteReader, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield each box on the path to the sample descriptions: its type, and the start and end of its content."""
    spans = [(0, size)]
    for _ in range(_MAX_BOXES):
        if not spans:
            return
        at, end = spans.pop()
        if at + 8 > end:
            continue
        file.seek(at)
        header = file.read(16)
        length, kind = struct.unpack_from(">I4s", header)
        body = at + 8
        if length == 1:
            length, body = struct.unpack_from(">Q", header, 8)[0], at + 16
        stop = min(end, at + length) if length else end
        if stop < body:
            continue
        spans.append((stop, end))
        yield kind, body, stop
        if kind in _WALKED:
            spans.append((body, stop))


def _matroska_encodings(head: bytes) -> bytes:
    """The content encodings of all tracks that are described in `head`, concatenated."""
    found = bytearray()
    for at in _all_of(head, b"\x6d\x80"):  # ContentEncodings
        length = _vint(head, at + 2)
        if length is not None and length[0] < 4096 and head[length[1] : length[1] + 2] == b"\x62\x40":
            found += head[length[1] : length[1] + length[0]]
    return bytes(found)


def _vint(data: bytes, at: int) -> tuple[int, int] | None:
    """Size of the element at offset `at`, and the offset of its content."""
    first = data[at] if at < len(data) else 0
    count = 9 - first.bit_length()
    if first == 0 or at + count > len(data):
        return None
    return int.from_bytes(data[at : at + count]) & ((1 << 7 * count) - 1), at + count


def _all_of(data: bytes, what: bytes) -> Iterator[int]:
    at = data.find(what)
    while at >= 0:
        yield at
        at = data.find(what, at + 1)
