"""Frames that are torn are marked, those that are whole are not: told by what a whole file decodes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.errors import SourceError
from streamgate.sources import open_source
from streamgate.sources.live import LiveConnection, LiveError
from support.damaged_streams import lossy_ts, without_packets
from support.media import astronaut_frames, write_clip

SIZE = (320, 240)
COUNT = 90

STREAMS = {
    "h264": ("libx264", {"g": "30", "bf": "2"}),
    "open groups": ("libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=24:b-pyramid=normal:scenecut=0"}),
    "intra refresh": ("libx264", {"bf": "0", "x264-params": "intra-refresh=1:keyint=30"}),
    "hevc": ("libx265", {"x265-params": "keyint=30:bframes=2:log-level=none"}),
    "mpeg2": ("mpeg2video", {"g": "15", "bf": "2", "b": "2M"}),
    "mpeg4": ("mpeg4", {"g": "30", "b": "2M"}),
}


@dataclass
class Shown:
    """What a reading gave: luma and mark by time in milliseconds."""

    luma: dict[int, np.ndarray]
    torn: dict[int, bool]


def shown(path: Path) -> Shown:
    with open_source(path) as source:
        found = Shown({}, {})
        for frame in source.frames():
            time = round(1000 * frame.pts_seconds)
            found.luma[time], found.torn[time] = frame.luma(), frame.corrupt
        return found


def moving(count: int = COUNT) -> list[np.ndarray]:
    return astronaut_frames(count, SIZE, step=3.0)


@pytest.mark.parametrize("name", STREAMS)
def test_after_a_loss_in_a_transport_stream_torn_frames_are_marked(name: str, tmp_path: Path) -> None:
    codec, options = STREAMS[name]
    path = write_clip(tmp_path / "whole.ts", moving(), codec=codec, options=options)
    whole = shown(path)
    assert len(whole.luma) == COUNT and not any(whole.torn.values())
    torn = marked = clean = 0
    for seed in range(4):
        try:
            lossy = shown(lossy_ts(path, tmp_path / "lossy.ts", seed, bursts=1 + seed, length=3 + 3 * seed))
        except SourceError:
            continue
        for time, luma in lossy.luma.items():
            differs = time not in whole.luma or not np.array_equal(luma, whole.luma[time])
            assert lossy.torn[time] or not differs, f"{time} ms with seed {seed}"
            torn += differs
            marked += lossy.torn[time]
            clean += not lossy.torn[time]
    # HEVC's decoder leaves most of them out by itself.
    assert marked >= torn and (torn > 20 or codec == "libx265")
    assert clean > 0.3 * 4 * COUNT


def test_a_missing_reference_is_seen_by_the_frame_numbers(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "whole.mkv", moving(), options={"g": "40", "bf": "0"})
    whole, lossy = shown(path), shown(without_packets(path, tmp_path / "lossy.mkv", {20, 21}))
    torn = [time for time, luma in lossy.luma.items() if not np.array_equal(luma, whole.luma[time])]
    assert torn == [1000 * i // 25 for i in range(22, 40)]
    assert [time for time, mark in lossy.torn.items() if mark] == torn


def test_a_missing_frame_that_none_builds_on_harms_no_other(tmp_path: Path) -> None:
    options = {"g": "40", "bf": "1", "x264-params": "b-pyramid=none:b-adapt=0"}
    path = write_clip(tmp_path / "whole.mkv", moving(), options=options)
    with av.open(str(path)) as container:
        packets = [packet.pts for packet in container.demux(video=0) if packet.size]
    index = next(index for index in range(20, 40) if packets[index] < packets[index - 1])
    whole, lossy = shown(path), shown(without_packets(path, tmp_path / "lossy.mkv", {index}))
    assert len(lossy.luma) == COUNT - 1 and not any(lossy.torn.values())
    assert all(np.array_equal(luma, whole.luma[time]) for time, luma in lossy.luma.items())


def test_what_comes_before_the_first_key_frame_is_torn_where_it_is_shown(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "whole.mkv", moving(), codec="mpeg4", options={"g": "30", "b": "2M"})
    cut = shown(without_packets(path, tmp_path / "cut.mkv", range(10)))
    assert list(cut.torn.values()) == [True] * 20 + [False] * 60


def test_bytes_that_changed_are_marked_up_to_the_next_key_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "whole.mp4", moving(), options={"g": "30", "bf": "2"})
    with av.open(str(path)) as container:
        hit = [packet for packet in container.demux(video=0) if packet.size][40]
        index, size = hit.pos, hit.size
    data = bytearray(path.read_bytes())
    data[index + 40 : index + size - 4] = b"\xa5" * (size - 44)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    whole, found = shown(path), shown(broken)
    torn = [time for time, luma in found.luma.items() if not np.array_equal(luma, whole.luma[time])]
    assert torn and all(found.torn[time] for time in torn)
    assert not any(mark for time, mark in found.torn.items() if time >= 60 * 40 or time < 35 * 40)


def test_joined_recordings_cost_no_more_than_the_frames_at_the_joint(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "one.ts", moving(), options={"g": "30", "bf": "2"})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(path.read_bytes() * 2)
    found = shown(joined)
    assert len(found.torn) == 2 * COUNT and sum(found.torn.values()) <= 4


def test_a_live_stream_marks_them_too(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "whole.ts", moving(50), options={"g": "25", "bf": "0"})
    lossy = lossy_ts(path, tmp_path / "lossy.ts", 1, bursts=2)
    expected = list(shown(lossy).torn.values())
    marks = []
    options = load_config("live").live
    with LiveConnection(f"file://{lossy}", options) as connection, pytest.raises(LiveError):
        for frame, _ in connection.frames():
            marks.append(frame.corrupt)
    # Without the frames that only the end of a file brings out.
    assert any(marks) and marks == expected[: len(marks)] and len(marks) > 40


def test_real_clips_have_no_torn_frame(shared_videos: Path) -> None:
    for path in sorted(shared_videos.iterdir()):
        if path.suffix in (".md", ".gif"):
            continue
        with open_source(path) as source:
            assert not any(frame.corrupt for frame in source.frames()), path.name


def test_case_packet_loss(shared_case: Callable[[str], Path]) -> None:
    with open_source(shared_case("packet_loss.ts")) as source:
        torn = [frame.corrupt for frame in source.frames()]
    # Nothing is lost before the 23rd packet, and no key frame after it is whole.
    assert not any(torn[:20]) and all(torn[24:]) and len(torn) == 239
