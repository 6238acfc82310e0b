"""Streams that lost something on the way."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path

import av

_PACKET = 188
_VIDEO_PID = 0x100  # as FFmpeg's writer numbers the first stream


def lossy_ts(source: Path, target: Path, seed: int, *, bursts: int = 3, length: int = 6) -> Path:
    """A transport stream without some runs of its video packets; the first fifth stays whole."""
    data, draw = source.read_bytes(), random.Random(seed)
    packets = [data[at : at + _PACKET] for at in range(0, len(data), _PACKET)]
    lost: set[int] = set()
    for _ in range(bursts):
        begin = draw.randrange(len(packets) // 5, len(packets))
        lost |= set(range(begin, begin + length))

    def stays(index: int, packet: bytes) -> bool:
        return index not in lost or (packet[1] & 0x1F) << 8 | packet[2] != _VIDEO_PID

    target.write_bytes(b"".join(packet for index, packet in enumerate(packets) if stays(index, packet)))
    return target


def without_packets(source: Path, target: Path, lost: Collection[int]) -> Path:
    """A copy without the video packets of those places."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for index, packet in enumerate(given.demux(video=0)):
            if packet.size and index not in lost:
                packet.stream = stream
                out.mux(packet)
    return target
