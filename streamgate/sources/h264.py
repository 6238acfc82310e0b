"""Checks H.264 frame numbers, which show whether a reference picture is missing between two packets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Buffer = Any
"""Anything that `memoryview` accepts; PyAV's packets support it, but their type stubs do not say so."""

_SLICE, _IDR, _SEI, _SPS, _PPS = 1, 5, 6, 7, 8
_RECOVERY_POINT = 6
_HEADER = 16
"""The first `_HEADER` bytes of a slice always include the frame number."""
_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_PROVEN = 8
"""A gap in the frame numbers counts as a loss only after at least this many pictures with consecutive numbers, because
some encoders number frames arbitrarily."""


class FrameNumbers:
    """Checks the packets of one stream, in storage order. Data that cannot be parsed is ignored.

    Args:
        extradata: the stream's extradata; empty or None if the parameter sets are in the packets.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self._sequences: dict[int, tuple[int, bool, bool]] = {}
        """For each sequence parameter set, by its id: the number of bits in a frame number, whether gaps are allowed,
        and whether colour planes are separate."""
        self._pictures: dict[int, int] = {}
        self._length_size = 0
        self._reference: int | None = None
        self._proven = 0
        data = extradata or b""
        if len(data) > 6 and data[0] == 1:
            self._length_size = (data[4] & 3) + 1
            self._read_avcc(data)
        else:
            for begin, end in start_codes(data):
                self._note_parameters(data, begin, end)

    def gap_before(self, packet: Buffer) -> bool:
        """Whether a reference picture is missing between the previous packet and `packet`; call once per packet."""
        data = memoryview(packet)
        for begin, end in self._units(data):
            kind = data[begin] & 31
            if kind in (_SLICE, _IDR):
                return self._follows_gap(kind, data[begin] >> 5 & 3, bytes(data[begin + 1 : min(end, begin + _HEADER)]))
            if kind in (_SPS, _PPS):
                self._note_parameters(data, begin, end)
        return False

    def recovers_after(self, packet: Buffer) -> int:
        """Number of pictures after a key packet that are still damaged if the data before that packet was damaged.

        This number is 0 unless a recovery point message gives a different number, as in streams that refresh pictures
        gradually instead of sending full key frames.
        """
        data = memoryview(packet)
        for begin, end in self._units(data):
            if data[begin] & 31 == _SEI:
                count = _recovery_count(_unescaped(bytes(data[begin + 1 : end])))
                if count is not None:
                    return count
        return 0

    def _units(self, data: memoryview) -> Iterator[tuple[int, int]]:
        """Yield the start and the end of each unit of a packet; units after the first slice may be left out."""
        size, at = self._length_size, 0
        if size == 0:
            yield from start_codes(bytes(data))
            return
        while at + size < len(data):
            begin = at + size
            at = begin + int.from_bytes(data[at:begin])
            yield begin, min(at, len(data))

    def _follows_gap(self, kind: int, importance: int, header: bytes) -> bool:
        # The three numbers before the frame number are parsed inline, because this runs for every packet of a file.
        header = _unescaped(header)
        value, left = int.from_bytes(header), 8 * len(header)
        found = 0
        for _ in range(3):  # first macroblock, slice type, picture parameter set
            zeros = left - (value & ((1 << left) - 1)).bit_length()
            left -= 2 * zeros + 1
            if left < 0:
                break
            found = (value >> left & ((2 << zeros) - 1)) - 1
        counting = self._sequences.get(self._pictures.get(found, -1)) if left >= 0 else None
        if counting is None or left < counting[0] + 2:
            self._reference = None
            return False
        bits, gaps_allowed, separate_planes = counting
        left -= bits + 2 * separate_planes
        number = value >> left & ((1 << bits) - 1)
        before = self._reference
        if importance:
            self._reference = number
        if kind == _IDR or before is None or gaps_allowed:
            return False
        if number == before or number == (before + 1) & ((1 << bits) - 1):
            self._proven += 1
            return False
        believed, self._proven = self._proven >= _PROVEN, 0
        return believed

    def _read_avcc(self, data: bytes) -> None:
        """Read the parameter sets of an MP4 or Matroska configuration record."""
        at, left, pictures = 6, data[5] & 31, False
        while at + 2 < len(data):
            if left == 0:
                if pictures:
                    return
                pictures, left, at = True, data[at], at + 1
                continue
            begin = at + 2
            at = begin + int.from_bytes(data[at:begin])
            left -= 1
            self._note_parameters(data, begin, min(at, len(data)))

    def _note_parameters(self, data: bytes | memoryview, begin: int, end: int) -> None:
        if begin >= end:
            return
        kind, bits = data[begin] & 31, _Bits(_unescaped(bytes(data[begin + 1 : end])))
        try:
            if kind == _SPS:
                number, counting = _sequence(bits)
                self._sequences[number] = counting
            elif kind == _PPS:
                picture = bits.unsigned()
                self._pictures[picture] = bits.unsigned()
        except EOFError:
            return


class _Bits:
    """Reads bits from the front. Raises EOFError past the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data)
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next `count` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise EOFError
        return self._value >> self._left & ((1 << count) - 1)

    def unsigned(self) -> int:
        """The next unsigned Exp-Golomb number."""
        rest = self._value & ((1 << self._left) - 1)
        zeros = self._left - rest.bit_length()
        self._left -= zeros
        return self.take(zeros + 1) - 1


def _sequence(bits: _Bits) -> tuple[int, tuple[int, bool, bool]]:
    """The id of a sequence parameter set (H.264 7.3.2.1.1), and its values as `FrameNumbers._sequences` stores them."""
    profile = bits.take(8)
    bits.take(16)  # constraints and level
    number = bits.unsigned()
    separate = False
    if profile in _HIGH_PROFILES:
        chroma = bits.unsigned()
        separate = chroma == 3 and bool(bits.take(1))
        bits.unsigned()  # luma depth
        bits.unsigned()  # chroma depth
        bits.take(1)
        if bits.take(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    size = bits.unsigned() + 4
    order = bits.unsigned()
    if order == 0:
        bits.unsigned()
    elif order == 1:
        bits.take(1)
        bits.unsigned()
        bits.unsigned()
        for _ in range(min(bits.unsigned(), 255)):
            bits.unsigned()
    bits.unsigned()  # reference frames
    return number, (size, bool(bits.take(1)), separate)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.unsigned()
            following = (last + (-(code // 2) if code % 2 == 0 else (code + 1) // 2)) % 256
        last = following or last


def _recovery_count(message: bytes) -> int | None:
    """The frame count of the recovery point message among SEI messages; None if there is no such message."""
    at = 0
    while at + 2 < len(message):
        kind = size = 0
        while at < len(message) and message[at] == 255:
            kind, at = kind + 255, at + 1
        kind, at = kind + message[at] if at < len(message) else -1, at + 1
        while at < len(message) and message[at] == 255:
            size, at = size + 255, at + 1
        size, at = size + message[at] if at < len(message) else 0, at + 1
        if kind == _RECOVERY_POINT:
            try:
                return _Bits(message[at : at + size]).unsigned()
            except EOFError:
                return None
        at += size
    return None


def start_codes(data: bytes) -> list[tuple[int, int]]:
    """The start and the end of each unit between start codes, up to and including the first slice."""
    found: list[tuple[int, int]] = []
    begin = data.find(b"\0\0\1")
    while begin >= 0 and begin + 3 < len(data):
        begin += 3
        if data[begin] & 31 in (_SLICE, _IDR):
            found.append((begin, min(len(data), begin + _HEADER)))
            break
        following = data.find(b"\0\0\1", begin)
        found.append((begin, following if following >= 0 else len(data)))
        begin = following
    return found


def _unescaped(data: bytes) -> bytes:
    return data.replace(b"\0\0\3", b"\0\0")
