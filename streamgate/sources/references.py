"""Tests whether other frames are predicted from a packet's frame; H.264 and HEVC mark the frames for which this is not
the case."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from av import Packet
from av.video.codeccontext import VideoCodecContext

from streamgate.sources.h264 import Buffer, start_codes

IsReference = Callable[[Packet], bool | None]
"""Whether the packet's frame is a reference; None if that is not known."""


def reference_test(codec: VideoCodecContext) -> IsReference:
    """The test for the packets of a stream that `codec` decodes."""
    name, extradata = codec.codec.canonical_name, codec.extradata or b""
    if name == "h264":
        size = (extradata[4] & 3) + 1 if len(extradata) > 6 and extradata[0] == 1 else 0
        return lambda packet: _first(_h264(data, begin) for data, begin in _units(packet, size))
    if name == "hevc":
        size = (extradata[21] & 3) + 1 if len(extradata) > 22 and extradata[0] == 1 else 0
        return lambda packet: _first(_hevc(data, begin) for data, begin in _units(packet, size))
    return lambda packet: None


def _h264(data: memoryview, begin: int) -> bool | None:
    """Whether the unit is a slice of a reference frame; None if it is not a slice."""
    return data[begin] >> 5 & 3 > 0 if data[begin] & 31 in (1, 5) else None


def _hevc(data: memoryview, begin: int) -> bool | None:
    kind = data[begin] >> 1 & 63
    # Of the types up to 15, the even ones are sub-layer non-reference pictures.
    return None if kind > 31 else kind > 15 or kind % 2 == 1


def _first(answers: Iterator[bool | None]) -> bool | None:
    return next((answer for answer in answers if answer is not None), None)


def _units(packet: Buffer, length_size: int) -> Iterator[tuple[memoryview, int]]:
    """Yield the packet's data and the start of each unit in it.

    `length_size` is the size of the length field before each unit; 0 if there are start codes instead.
    """
    data, at = memoryview(packet), 0
    if not length_size:
        yield from ((data, begin) for begin, _ in start_codes(bytes(data)))
        return
    while at + length_size < len(data):
        begin = at + length_size
        at = begin + int.from_bytes(data[at:begin])
        yield data, begin
