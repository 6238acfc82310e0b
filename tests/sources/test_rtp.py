"""RTP of a main stream: cut into pictures as it comes, and taken apart when one is wanted."""

from __future__ import annotations

import random
import struct
from itertools import pairwise
from pathlib import Path

import av
import pytest
from av.bitstream import BitStreamFilterContext

from streamgate.sources.live import LiveError
from streamgate.sources.packet_ring import PacketRing
from streamgate.sources.rtp import Unit, UnitReader, access_unit
from streamgate.sources.rtsp_client import Media
from support.media import plain_frames, write_clip
from support.rtsp_server import Packets, _interleaved, _nals, load

RATE = 90_000
MEDIA = Media("h264", RATE, "", b"")
START = b"\x00\x00\x00\x01"


def packet(stamp: int, payload: bytes, *, marker: bool = False, channel: int = 0, head: int = 0x80) -> bytes:
    rtp = struct.pack(">BBHII", head, 96 | 0x80 * marker, 7, stamp % (1 << 32), 1) + payload
    return struct.pack(">BBH", 36, channel, len(rtp)) + rtp


def read(codec: str, data: bytes, size: int = 1 << 20) -> list[Unit]:
    reader, units = UnitReader(codec), []
    for index in range(0, len(data), size):
        units += reader.feed(data[index : index + size])
    return units


@pytest.mark.parametrize("size", [1, 7, 1400, 1 << 20])
def test_pictures_come_out_as_the_camera_made_them(tmp_path: Path, size: int):
    clip = load(str(write_clip(tmp_path / "clip.mp4", plain_frames(12, (320, 240)), options={"g": "5"})))
    packets = Packets()
    sent = b"".join(_interleaved(one) for shown, nals in clip.units for one in packets.unit(shown, nals))
    units = read("h264", sent if size > 1 else sent[:20_000], size)
    assert len(units) >= (12 if size > 1 else 1)
    for unit, (shown, nals) in zip(units, clip.units, strict=False):
        assert access_unit(unit, "h264") == b"".join(START + nal for nal in nals)
        assert unit.key == any(nal[0] & 31 == 5 for nal in nals)
        assert unit.time - units[0].time == int(shown * RATE) - int(clip.units[0][0] * RATE)


def test_hevc_is_told_by_its_own_types():
    vps, idr, trail = b"\x40\x01vps", b"\x26\x01" + b"i" * 90, b"\x02\x01trail"
    together = b"\x60\x01" + b"".join(struct.pack(">H", len(nal)) + nal for nal in (vps, idr))
    parts = [b"\x62\x01" + bytes((0x80 | 19,)) + idr[2:40], b"\x62\x01" + bytes((0x40 | 19,)) + idr[40:]]
    data = packet(0, together, marker=True) + packet(3600, trail, marker=True)
    data += packet(7200, parts[0]) + packet(7200, parts[1], marker=True)
    units = read("hevc", data)
    assert [unit.key for unit in units] == [True, False, True]
    assert access_unit(units[0], "hevc") == START + vps + START + idr
    assert access_unit(units[1], "hevc") == START + trail
    assert access_unit(units[2], "hevc") == START + idr


def test_hevc_is_decoded_from_what_was_kept(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx265", rate=25, options={"preset": "ultrafast", "x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for picture in plain_frames(8, (320, 240)):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        made.mux(stream.encode(None))
    sent = b""
    with av.open(str(path)) as read_back:
        annex_b = BitStreamFilterContext("hevc_mp4toannexb", read_back.streams.video[0])
        for one in read_back.demux(video=0):
            for filtered in annex_b.filter(one if one.size else None):
                nals = list(_nals(bytes(filtered)))
                for nal in nals:
                    marker = nal is nals[-1]
                    if len(nal) <= 200:
                        sent += packet(filtered.pts, nal, marker=marker)
                        continue
                    head, kind, body = bytes((nal[0] & 0x81 | 49 << 1, nal[1])), nal[0] >> 1 & 63, nal[2:]
                    for start in range(0, len(body), 200):
                        last = start + 200 >= len(body)
                        mark = bytes((0x80 * (start == 0) | 0x40 * last | kind,))
                        sent += packet(filtered.pts, head + mark + body[start : start + 200], marker=marker and last)
    units = read("hevc", sent, 999)
    codec = av.CodecContext.create("hevc", "r")
    assert len(units) == 8 and units[0].key
    frames = [frame for unit in units for frame in codec.decode(av.Packet(access_unit(unit, "hevc")))]
    assert len(frames + codec.decode(None)) == 8


def test_what_stands_between_pictures_is_not_part_of_them():
    nal = b"\x65" + b"k" * 20
    answer = b"RTSP/1.0 200 OK\r\nCSeq: 9\r\nContent-Length: 5\r\n\r\n$$$$$"
    report = packet(5, b"s" * 24, channel=1)
    extended = struct.pack(">HH", 0xBEDE, 1) + b"xxxx" + nal + b"\x00\x00\x03"
    data = packet(0, nal[:1] + b"first", marker=True) + answer + report + packet(3600, extended, head=0xB0) + answer
    data += packet(3600, b"\x41" + b"m" * 8, marker=True)
    for size in (1, 5, 1000):
        first, second = read("h264", data, size)
        assert access_unit(first, "h264") == START + b"\x65first"
        assert access_unit(second, "h264") == START + nal + START + b"\x41" + b"m" * 8


def test_time_goes_on_over_the_wrap_and_out_of_order():
    stamps = [(1 << 32) - 3600, 3600, 0, 7200]
    units = read("h264", b"".join(packet(stamp, b"\x41ab", marker=True) for stamp in stamps))
    assert [unit.time - units[0].time for unit in units] == [0, 7200, 3600, 10800]


def test_a_picture_ends_with_the_next_time_stamp_where_no_marker_says_so():
    units = read("h264", packet(0, b"\x65ab") + packet(0, b"\x41cd") + packet(3600, b"\x41ef", marker=True))
    assert [(unit.key, access_unit(unit, "h264")) for unit in units] == [
        (True, START + b"\x65ab" + START + b"\x41cd"), (False, START + b"\x41ef"),
    ]  # fmt: skip


def test_what_is_no_stream_ends_in_an_error_and_not_in_memory():
    with pytest.raises(LiveError, match="not RTP video"):
        read("h264", b"x" * 200_000, 5000)
    endless = packet(0, b"\x65" + b"y" * 1300)
    with pytest.raises(LiveError, match="not RTP video"):
        read("h264", endless * 7000, 100_000)


def test_broken_packets_break_nothing():
    wild = random.Random(3)
    for _ in range(300):
        payload, head = wild.randbytes(wild.randrange(30)), wild.randrange(256)
        body = packet(wild.randrange(1 << 32), payload, marker=True, head=head)
        for codec in ("h264", "hevc"):
            for unit in read(codec, body * 3):
                access_unit(unit, codec)


def units_of(count: int, group: int, size: int = 1000, start: int = 0) -> list[Unit]:
    return [Unit((start + n) * 3600, (start + n) % group == 0, bytes(size)) for n in range(count)]


def test_the_ring_holds_whole_groups_of_the_last_seconds():
    ring = PacketRing(MEDIA, 0, 4.0, 1 << 20)
    ring.add(units_of(7, 25, start=18))  # what is before the first key frame cannot be decoded
    assert ring.nbytes == 0
    ring.add(units_of(250, 25, start=25))
    assert ring.newest == pytest.approx(274 * 0.04)
    assert 4.0 <= ring.seconds <= 5.04
    found = ring.units(8.5, 9.1)
    assert found[0].key and found[0].time == 200 * 3600
    assert found[-1].time == int(9.1 / 0.04) * 3600
    assert ring.units(5.0, 5.2) == []


def test_the_ring_is_bounded_in_bytes_whatever_comes():
    ring = PacketRing(MEDIA, 0, 60.0, 100_000)
    for unit in units_of(500, 20):
        ring.add([unit])
        assert ring.nbytes <= 100_000
    assert ring.nbytes >= 80_000
    ring.add(units_of(300, 1 << 20, start=1 << 20))  # a group that alone is too large
    assert ring.nbytes <= 100_000


def test_what_is_pinned_stays_and_goes():
    ring = PacketRing(MEDIA, 0, 2.0, 200_000)
    ring.add(units_of(50, 25))
    ring.pin("one", 0.5, 0.7)
    ring.add(units_of(200, 25, start=50))
    assert [unit.time for unit in ring.units(0.5, 0.7)] == [n * 3600 for n in range(18)]
    assert ring.units(1.6, 1.8) == [] and ring.units(4.0, 4.1) == []
    held = ring.nbytes
    ring.unpin("one")
    assert ring.units(0.5, 0.7) == [] and ring.nbytes == held - 25_000
    for n in range(10, 60):
        ring.pin(n, n, n + 1)
    ring.add(units_of(1500, 25, start=250))
    assert ring.nbytes <= 400_000
    for n in range(10, 60):
        ring.unpin(n)


def test_a_stretch_may_run_through_groups():
    ring = PacketRing(MEDIA, 0, 8.0, 1 << 20)
    ring.add(units_of(100, 25))
    found = ring.units(0.9, 1.2)
    assert [unit.time for unit in found] == [n * 3600 for n in range(31)]
    assert all(after.time - before.time == 3600 for before, after in pairwise(found))
