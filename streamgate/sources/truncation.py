"""Detects files that are shorter than their headers say; FFmpeg reads such files to the end without an error."""

from __future__ import annotations

import struct

from streamgate.sources.remote import AnyPath

_HEAD = 1 << 12
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def is_truncated(path: AnyPath) -> bool:
    """Whether a Matroska, WebM or AVI file is shorter than its header says. Never raises.

    Recordings that were never finalized do not state their size and do not count as truncated.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    promised = _matroska_size(head) if head.startswith(_EBML) else _riff_size(head)
    return promised is not None and size < promised


def _matroska_size(head: bytes) -> int | None:
    """Offset of the end of the first segment; None if its size is not known.

    RFC 8794 specifies EBML elements, RFC 9559 the segment.
    """
    header = _length(head, len(_EBML))
    if header is None:
        return None
    start = header[1] + header[0]
    if head[start : start + 4] != _SEGMENT:
        return None
    segment = _length(head, start + 4)
    return None if segment is None else segment[1] + segment[0]


def _length(head: bytes, offset: int) -> tuple[int, int] | None:
    """Size of the element at `offset`, and offset of its content; None if it is cut off or of unknown size."""
    first = head[offset] if offset < len(head) else 0
    count = 9 - first.bit_length()
    if first == 0 or offset + count > len(head):
        return None
    value = int.from_bytes(head[offset : offset + count]) & ((1 << 7 * count) - 1)
    return None if value == (1 << 7 * count) - 1 else (value, offset + count)


def _riff_size(head: bytes) -> int | None:
    if head[:4] != b"RIFF" or head[8:12] != b"AVI " or len(head) < 12:
        return None
    length = int(struct.unpack_from("<I", head, 4)[0])
    # A recorder that did not finalize the file leaves a size of 0 or 0xFFFFFFFF.
    return None if length in (0, 0xFFFFFFFF) else 8 + length
