"""Files whose edit list begins after their first key frame: what it hides is decoded, and not shown."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from streamgate.frames import Frame
from streamgate.sources import open_source
from streamgate.sources.base import Interest
from support.media import astronaut_frames, write_clip

SIZE = (160, 120)
TICKS = 512  # of a frame at 25 fps in FFmpeg's MP4


class Bored:
    """A guide that sees no face anywhere."""

    discards = frozenset({Interest.EMPTY})
    max_gap_s, max_skip_s, probe_interval_s = 0.1, 2.0, 0.4

    def interest(self, pts_seconds: float) -> Interest:
        return Interest.EMPTY

    def sees_face(self, frame: Frame) -> bool:
        return False


def trimmed(path: Path, whole: Path, first: int) -> Path:
    """`whole` as trimming tools leave it: its edit list begins `first` frames later."""
    data = bytearray(whole.read_bytes())
    at = data.index(b"elst") + 4
    entries, duration, media_time = struct.unpack_from(">IIi", data, at + 4)
    assert entries == 1
    struct.pack_into(">Ii", data, at + 8, duration - first * 40, media_time + first * TICKS)
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    options = {"bf": "2", "g": "50", "x264-params": "scenecut=0"}
    return write_clip(folder / "whole.mp4", astronaut_frames(300, SIZE, step=0.5), options=options)


def luma_of(path: Path) -> list[tuple[float, int | None, str]]:
    with open_source(path) as source:
        found = [
            (frame.pts_seconds, frame.frame_index, hashlib.sha256(frame.luma().tobytes()).hexdigest())
            for frame in source.frames()
        ]
        assert (source.stats.decode_errors, source.stats.pts_estimated) == (0, 0)
        return found


def test_what_comes_before_the_first_key_frame_inside_is_shown(whole: Path, tmp_path: Path) -> None:
    path = trimmed(tmp_path / "trimmed.mp4", whole, 33)
    with av.open(str(path)) as container:
        hidden = [packet.is_discard for packet in container.demux(video=0)]
    assert sum(hidden) >= 33
    everything, rest = luma_of(whole), luma_of(path)
    assert [(time, index) for time, index, _ in rest] == [(i / 25, i) for i in range(300 - 33)]
    assert [digest for *_, digest in rest] == [digest for *_, digest in everything[33:]]


def test_leaving_frames_out_goes_with_an_edit_list(whole: Path, tmp_path: Path) -> None:
    path = trimmed(tmp_path / "trimmed.mp4", whole, 33)
    everything = {time: (index, digest) for time, index, digest in luma_of(path)}
    with open_source(path) as source:
        some = {
            frame.pts_seconds: (frame.frame_index, hashlib.sha256(frame.luma().tobytes()).hexdigest())
            for frame in source.frames(Bored())
        }
        assert source.stats.decode_errors == 0
    assert len(some) < 0.5 * len(everything)
    assert all(everything[time] == found for time, found in some.items())


def test_a_file_is_entered_within_its_edit_list(whole: Path, tmp_path: Path) -> None:
    path = trimmed(tmp_path / "trimmed.mp4", whole, 33)
    with open_source(path) as source:
        wanted = next(frame for frame in source.frames() if frame.pts_seconds == 0.2).luma()
        found = next(frame for frame in source.frames_from(0.2) if frame.pts_seconds == 0.2).luma()
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name, count", [
    ("torchcodec_discard_first_keyframe.mp4", 25), ("editlist_trim_copy.mp4", 77),
])  # fmt: skip
def test_case_trimmed_files(name: str, count: int, shared_case: Callable[[str], Path]) -> None:
    with open_source(shared_case(name)) as source:
        frames = [(frame.pts_seconds, frame.frame_index) for frame in source.frames()]
        assert source.stats.decode_errors == 0
    assert [index for _, index in frames] == list(range(count)) and frames[0][0] == 0.0
