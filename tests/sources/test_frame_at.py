"""A frame found again is the one that the reading gave, bit by bit, in whatever container and state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from streamgate.frames import Frame
from streamgate.sources import open_source
from support.damaged_streams import without_packets
from support.media import astronaut_frames, plain_frames, write_clip

SIZE = (160, 120)
OPEN = {"bf": "3", "x264-params": "open-gop=1:keyint=12:b-pyramid=normal:scenecut=0"}
FORMS = {
    "mp4": ("clip.mp4", "libx264", {"g": "12", "bf": "2"}),
    "open groups": ("clip.mkv", "libx264", OPEN),
    "one key frame": ("clip.ts", "libx264", {"g": "250"}),
    "transport stream": ("clip.ts", "libx264", OPEN),
    "hevc": ("clip.ts", "libx265", {"x265-params": "keyint=12:bframes=2:log-level=none"}),
    "program stream": ("clip.mpg", "mpeg2video", {"g": "12", "bf": "2", "b": "2M"}),
    "avi": ("clip.avi", "mpeg4", {"g": "12", "b": "2M"}),
    "avi with b-frames": ("clip.avi", "mpeg4", {"g": "12", "bf": "2", "b": "2M"}),
    "avi with open groups": ("clip.avi", "libx264", OPEN),
    "raw": ("clip.264", "libx264", {"g": "12", "bf": "2"}),
    "webm": ("clip.webm", "libvpx", {"g": "12", "b": "1M"}),
    "gif": ("clip.gif", "gif", {}),
}


def digest(frame: Frame) -> str:
    return hashlib.sha256(frame.luma().tobytes()).hexdigest()[:16]


def check(path: Path, every: int = 7) -> None:
    """Each of some frames of `path`, looked up from back to front, is that of a reading; in a fresh source as well."""
    with open_source(path) as source:
        read = {frame.pts_seconds: (digest(frame), frame.corrupt) for frame in source.frames()}
        again = source
        for _ in range(2):
            for time in list(read)[::-every]:
                found = again.frame_at(time)
                assert found is not None, f"{time:.3f}"
                assert (found.pts_seconds, found.frame_index) == (pytest.approx(time, abs=1e-5), None)
                # What a decoder makes of damage depends on where it began.
                assert found.corrupt == read[time][1], f"{time:.3f}"
                assert found.corrupt or digest(found) == read[time][0], f"{time:.3f}"
            again.close()
            again = open_source(path)
        times = list(read)
        middle = times[len(times) // 2]
        later = [frame.pts_seconds for frame in again.frames_from(middle)]
        assert later == pytest.approx(times[len(times) // 2 :], abs=1e-5)
        assert again.frame_at(times[-1] + 5) is None and again.frame_at((times[1] + times[2]) / 2) is None
        again.close()


@pytest.mark.parametrize("form", FORMS)
def test_in_every_container(form: str, tmp_path: Path) -> None:
    name, codec, options = FORMS[form]
    pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
    check(write_clip(tmp_path / name, astronaut_frames(60, SIZE), codec=codec, options=options, pix_fmt=pix_fmt))


@pytest.mark.parametrize("name, codec, options", [
    ("clip.ts", "libx264", OPEN), ("clip.mpg", "mpeg2video", {"g": "12", "bf": "2", "b": "2M"}),
])  # fmt: skip
def test_in_recordings_that_were_joined(name: str, codec: str, options: dict[str, str], tmp_path: Path) -> None:
    one = write_clip(tmp_path / name, astronaut_frames(40, SIZE), codec=codec, options=options)
    other = write_clip(tmp_path / f"2{name}", plain_frames(20, SIZE) + astronaut_frames(20, SIZE), codec=codec,
                       options=options)  # fmt: skip
    joined = tmp_path / f"joined{one.suffix}"
    joined.write_bytes(one.read_bytes() + other.read_bytes() + one.read_bytes())
    with open_source(joined) as source:
        assert sum(1 for _ in source.frames()) > 110 and source.stats.pts_estimated > 70
    check(joined, every=11)


def test_a_joined_recording_is_decoded_once_and_then_entered_at_its_key_frames(tmp_path: Path) -> None:
    one = write_clip(tmp_path / "one.ts", astronaut_frames(60, SIZE), options={"g": "10", "bf": "2"})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() * 2)
    with open_source(joined) as source:
        times = [frame.pts_seconds for frame in source.frames()]
        assert source.frame_at(times[115]) is not None
        marks = [mark.pts_seconds for mark in source._marks]  # type: ignore[attr-defined]
        assert marks == [times[index] for index in range(0, 120, 10)]


def test_in_a_recording_that_starts_in_the_middle_of_a_group(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.ts", astronaut_frames(80, SIZE), options={"g": "30", "bf": "2"})
    data = whole.read_bytes()
    cut = tmp_path / "cut.ts"
    # The tables first, then from somewhere in the first group on.
    cut.write_bytes(data[: 188 * 3] + data[len(data) // 8 // 188 * 188 :])
    with open_source(cut) as source:
        assert sum(1 for _ in source.frames()) == 50
    check(cut)


def test_what_is_torn_is_found_torn(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "whole.mkv", astronaut_frames(80, SIZE, step=3.0), options={"g": "40", "bf": "0"})
    check(without_packets(path, tmp_path / "lossy.mkv", {20}))


def test_interlaced_frames_have_their_neighbours(tmp_path: Path) -> None:
    moving = astronaut_frames(120, (640, 480), step=2.0)
    woven = []
    for first, second in zip(moving[::2], moving[1::2], strict=True):
        picture = first.copy()
        picture[1::2] = second[1::2]
        woven.append(picture)
    flagged = write_clip(tmp_path / "tv.mp4", woven, interlaced=True, options={"crf": "8", "g": "12"})
    check(flagged)
    unflagged = write_clip(tmp_path / "not.mp4", woven, options={"crf": "8", "g": "12"})
    with open_source(unflagged) as source:
        read = {frame.pts_seconds: digest(frame) for frame in source.frames()}
        for time in list(read)[12::7]:
            found = source.frame_at(time)
            assert found is not None and digest(found) == read[time], f"{time:.3f}"
    with open_source(unflagged) as fresh:
        fresh.read_as(combed=True)
        found = fresh.frame_at(list(read)[25])
        assert found is not None and digest(found) == list(read.values())[25]


def test_a_turned_source_is_found_turned(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", astronaut_frames(30, SIZE), options={"g": "10"})
    with open_source(path) as source:
        upright = source.frame_at(0.8)
        assert upright is not None
        source.read_as(turned=1)
        assert (source.width, source.height) == (SIZE[1], SIZE[0])
        found = source.frame_at(0.8)
        assert found is not None and (found.width, found.height) == (SIZE[1], SIZE[0])
        np.testing.assert_array_equal(np.rot90(upright.luma(), -1), found.luma())
        assert sum(frame.width == SIZE[1] for frame in source.frames()) == 30


def test_pictures_of_a_folder_have_their_times(tmp_path: Path) -> None:
    for index, rgb in enumerate(astronaut_frames(4, SIZE)):
        av.VideoFrame.from_ndarray(rgb, format="rgb24").save(str(tmp_path / f"{index}.png"))
    with open_source(tmp_path) as source:
        found = source.frame_at(2.0)
        assert found is not None and found.name == "2.png" and source.frame_at(2.5) is None
    with open_source(tmp_path, sequence_fps=3) as source:
        found = source.frame_at(2 / 3)
        assert found is not None and found.name == "2.png"
        assert [frame.name for frame in source.frames_from(0.4)] == ["2.png", "3.png"]


@pytest.mark.parametrize("name", [
    "joined_tune_clips.ts", "nokey_tune_clips.ts", "nopts_bframes.avi", "packet_loss.ts", "editlist_trim_copy.mp4",
])  # fmt: skip
def test_case_frames_are_found_again(name: str, shared_case: Callable[[str], Path]) -> None:
    check(shared_case(name), every=29)


def test_real_clips_frames_are_found_again(shared_videos: Path) -> None:
    for name in ("lipnet_grid_bbaf2n.mpg", "moviepy_bbb.webm", "mmaction2_tests_test.avi", "sign_book.mkv",
                 "intel_prev_head-pose-face-detection-female.gif", "radio_man.mp4"):  # fmt: skip
        check(shared_videos / name, every=31)
