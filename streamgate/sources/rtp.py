"""Stores RTP packets of H.264 and HEVC as received, interleaved in an RTSP connection (RFC 2326, 3550, 6184, 7798).

Depacketizing takes more time than receiving. So a picture is stored as the bytes that were received, and only its time
and whether it is a key frame are parsed. For the few pictures that are decoded, `access_unit` converts these bytes to
the format that a decoder takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from streamgate.sources.live import FailureKind, LiveError

_START = b"\x00\x00\x00\x01"
_LARGEST = 8 << 20
"""Maximum number of bytes of one picture; valid video has no larger ones."""
_MAX_HEAD_BYTES = 1 << 16
_WRAP = 1 << 32
_H264_KEYS, _H264_OTHERS = frozenset({5}), frozenset({1, 2})
_HEVC_KEYS, _HEVC_OTHERS = frozenset(range(16, 22)), frozenset(range(10))
_LENGTH = re.compile(rb"(?i)\r\ncontent-length:\s*([0-9]{1,6})\r\n")


@dataclass(frozen=True, slots=True)
class Unit:
    """An encoded picture.

    Attributes:
        time: the camera's timestamp in units of the stream's clock, unwrapped.
        key: decoding can start here.
        data: the interleaved RTP packets of the picture.
    """

    time: int
    key: bool
    data: bytes


class UnitReader:
    """Splits the data of an RTSP connection into pictures.

    Args:
        codec: "h264" or "hevc".
        channel: the interleaved channel of the pictures.
        location: the stream without secrets, for errors.
    """

    def __init__(self, codec: str, channel: int = 0, location: str = "") -> None:
        self._hevc = codec == "hevc"
        self._channel = channel
        self._location = location
        self._rest = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._stamp = -1
        self._time: int | None = None
        self._key: bool | None = None

    def feed(self, data: bytes) -> list[Unit]:
        """Add received data and return the pictures that are now complete.

        Raises LiveError if the data is neither interleaved RTP nor RTSP responses.
        """
        buffer = self._rest + data if self._rest else data
        units: list[Unit] = []
        index, end, start = 0, len(buffer), 0
        channel = self._channel
        while end - index >= 4:
            if buffer[index] != 0x24:
                self._part(buffer[start:index])
                skipped = self._answer_length(buffer, index)
                index = start = index + skipped
                if not skipped:
                    break
                continue
            length = buffer[index + 2] << 8 | buffer[index + 3]
            following = index + 4 + length
            if following > end:
                break
            if buffer[index + 1] == channel and length > 12:
                stamp = int.from_bytes(buffer[index + 8 : index + 12])
                if stamp != self._stamp:
                    # The previous picture ended without a marker bit.
                    self._part(buffer[start:index])
                    start = index
                    self._finish(units)
                    self._stamp = stamp
                if self._key is None:
                    self._key = self._kind(buffer[index + 4 : min(following, index + 96)])
                if buffer[index + 5] & 0x80:
                    self._part(buffer[start:following])
                    start = following
                    self._finish(units)
            index = following
        self._part(buffer[start:index])
        self._rest = buffer[index:]
        return units

    def _part(self, data: bytes) -> None:
        if data:
            self._parts.append(data)
            self._size += len(data)
            if self._size > _LARGEST:
                raise self._error(f"a picture exceeds {_LARGEST >> 20} MiB")

    def _answer_length(self, buffer: bytes, index: int) -> int:
        """Length in bytes of the RTSP response or request that starts at `index`; 0 while it is incomplete."""
        end = buffer.find(b"\r\n\r\n", index)
        if end < 0:
            if len(buffer) - index > _MAX_HEAD_BYTES:
                raise self._error("the data is neither RTP nor an RTSP response")
            return 0
        found = _LENGTH.search(buffer, index, end + 2)
        whole = end + 4 - index + (int(found[1]) if found else 0)
        return whole if len(buffer) - index >= whole else 0

    def _error(self, what: str) -> LiveError:
        text = f"{self._location}: the stream is not RTP video: {what}; check the camera"
        return LiveError(FailureKind.UNREADABLE, text, self._location)

    def _finish(self, units: list[Unit]) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        key, self._key = self._key, None
        if not parts or self._stamp < 0:
            return
        if self._time is None:
            self._time = self._stamp
        step = (self._stamp - self._time) % _WRAP
        self._time += step - _WRAP if step >= _WRAP // 2 else step
        if key is not None:
            units.append(Unit(self._time, key, b"".join(parts)))
        self._stamp = -1

    def _kind(self, packet: bytes) -> bool | None:
        """Whether the picture of this packet is a key frame; None if the packet does not say."""
        payload = _payload(packet, padded=False)
        keys, others = (_HEVC_KEYS, _HEVC_OTHERS) if self._hevc else (_H264_KEYS, _H264_OTHERS)
        for kind in _kinds(payload, self._hevc):
            if kind in keys:
                return True
            if kind in others:
                return False
        return None


def access_unit(unit: Unit, codec: str, channel: int = 0) -> bytes:
    """The NAL units of a picture, each with a start code, as decoders expect them."""
    data, hevc = unit.data, codec == "hevc"
    out = bytearray()
    index = 0
    while len(data) - index >= 4:
        length = data[index + 2] << 8 | data[index + 3]
        if data[index + 1] == channel and length > 12:
            _unpack(_payload(data[index + 4 : index + 4 + length]), hevc, out)
        index += 4 + length
    return bytes(out)


def _payload(packet: bytes, *, padded: bool = True) -> bytes:
    """An RTP packet without its header."""
    first = packet[0]
    start = 12 + 4 * (first & 15)
    if first & 0x10 and len(packet) >= start + 4:
        start += 4 + 4 * int.from_bytes(packet[start + 2 : start + 4])
    if first & 0x20 and padded and packet[-1] <= len(packet) - start:
        return packet[start : len(packet) - packet[-1]]
    return packet[start:]


def _kinds(payload: bytes, hevc: bool) -> Iterator[int]:
    """Types of the NAL units in a payload, which may be cut off at the end."""
    if len(payload) < 3:
        return
    kind = payload[0] >> 1 & 63 if hevc else payload[0] & 31
    if kind == (49 if hevc else 28):
        yield payload[2] & 63 if hevc else payload[1] & 31
    elif kind == (48 if hevc else 24):
        index = 2 if hevc else 1
        while index + 3 <= len(payload):
            head = payload[index + 2]
            yield head >> 1 & 63 if hevc else head & 31
            index += 2 + int.from_bytes(payload[index : index + 2])
    else:
        yield kind


def _unpack(payload: bytes, hevc: bool, out: bytearray) -> None:
    """Append the NAL units of one payload to `out`."""
    if len(payload) < 3:
        return
    kind = payload[0] >> 1 & 63 if hevc else payload[0] & 31
    if kind == (48 if hevc else 24):
        index = 2 if hevc else 1
        while index + 2 < len(payload):
            size = int.from_bytes(payload[index : index + 2])
            out += _START
            out += payload[index + 2 : index + 2 + size]
            index += 2 + size
    elif hevc and kind == 49:
        head = payload[2]
        if head & 0x80:
            out += _START
            out += bytes((payload[0] & 0x81 | (head & 63) << 1, payload[1]))
        out += payload[3:]
    elif not hevc and kind == 28:
        head = payload[1]
        if head & 0x80:
            out += _START
            out.append(payload[0] & 0xE0 | head & 31)
        out += payload[2:]
    elif kind < (48 if hevc else 24):
        out += _START
        out += payload
