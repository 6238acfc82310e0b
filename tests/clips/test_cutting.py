"""Cutting: the frames, their look, the sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streamgate.clips.cutting import copy_window, copyable_windows, encode_window, suffix_for
from streamgate.clips.windows import Window
from streamgate.sources.file import VideoFile
from support.media import astronaut_frames, write_clip


def pictures(path: Path, start: float = 0.0, end: float = 1e9) -> list[np.ndarray]:
    """Upright pictures shown in [start, end)."""
    with VideoFile(path) as source:
        return [
            frame.thumbnail(1000) for frame in source.frames() if start - 1e-6 <= frame.pts_seconds < end - 1e-6
        ]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def difference(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    assert len(a) == len(b)
    return max(float(np.abs(one.astype(int) - other).mean()) for one, other in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rotation": 90},
        {"rotation": 270, "hflip": True},
        {"rotation": 180},
        {"vflip": True},
        {"sar": Fraction(4, 3)},
        {"fps": Fraction(30000, 1001)},
        {"pix_fmt": "yuv444p"},
        {"pix_fmt": "yuv420p10le", "matrix": "bt709"},
    ],
    ids=str,
)
def test_encoded_anew_it_shows_what_the_source_shows(options: dict, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", astronaut_frames(40, (160, 120)), **options)
    with VideoFile(clip) as source:
        times = [frame.pts_seconds for frame in source.frames()]
        window = Window(times[7], times[31])
        assert encode_window(source, tmp_path / "cut.mp4", window) == 24
    shown, expected = pictures(tmp_path / "cut.mp4"), pictures(clip, window.start, window.end)
    assert shown[0].shape == expected[0].shape
    assert difference(shown, expected) < 3.0
    with VideoFile(tmp_path / "cut.mp4") as cut:
        moved = [frame.pts_seconds for frame in cut.frames()]
    assert np.allclose(moved, np.array(times[7:31]) - times[7], atol=1e-4)


@pytest.mark.parametrize("bframes", [0, 3])
@pytest.mark.parametrize("rotation", [0, 90])
def test_copied_it_is_the_sources_own_packets_from_key_frame_on(bframes: int, rotation: int, tmp_path: Path) -> None:
    options = {"g": "10", "bf": str(bframes), "preset": "medium", "sc_threshold": "0"}
    clip = write_clip(tmp_path / "clip.mp4", astronaut_frames(50, (160, 120)), options=options, rotation=rotation)
    windows = copyable_windows(VideoFile(clip), 0.5)
    assert [round(window.start * 25) for window in windows] == [0, 10, 20, 30]
    assert all(window.end - window.start >= 0.5 - 1e-6 for window in windows)
    window = windows[1]
    count = copy_window(VideoFile(clip), tmp_path / "cut.mp4", window)
    own = packets(clip)
    assert packets(tmp_path / "cut.mp4") == own[10 : 10 + count]
    shown, expected = pictures(tmp_path / "cut.mp4"), pictures(clip, window.start, window.end)
    assert shown[0].shape == expected[0].shape == ((160, 120, 3) if rotation else (120, 160, 3))
    assert difference(shown, expected) == 0.0


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("rotation", [0, 90])
def test_of_a_source_that_was_found_on_its_side_it_is_shown_turned(
    copied: bool, rotation: int, tmp_path: Path
) -> None:
    clip = write_clip(
        tmp_path / "clip.mp4", astronaut_frames(30, (160, 96)), options={"g": "10"}, rotation=rotation
    )
    with VideoFile(clip) as source:
        source.read_as(turned=1)
        window = copyable_windows(source, 0.4)[1] if copied else Window(0.4, 0.8)
        (copy_window if copied else encode_window)(source, tmp_path / "cut.mp4", window)
    upright = pictures(clip, window.start, window.end)
    shown = pictures(tmp_path / "cut.mp4")
    assert difference(shown, [np.rot90(one, -1) for one in upright]) < 3.0


@pytest.mark.parametrize("copied", [False, True])
def test_sound_stays(copied: bool, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", astronaut_frames(25, (160, 120)), audio=True, options={"g": "5"})
    assert suffix_for(VideoFile(clip), copy=copied) == ".mp4"
    target = tmp_path / "cut.mp4"
    if copied:
        copy_window(VideoFile(clip), target, copyable_windows(VideoFile(clip), 0.4)[1])
    else:
        with VideoFile(clip) as source:
            encode_window(source, target, Window(0.2, 0.6))
    with av.open(str(target)) as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name == "aac"
        times = [float(packet.pts * packet.time_base) for packet in container.demux(sound) if packet.pts is not None]
    assert 0.3 < times[-1] - times[0] + 1024 / 48000 <= 0.45


def test_what_an_mp4_does_not_hold_goes_into_matroska(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", astronaut_frames(10, (160, 120)), codec="mjpeg", pix_fmt="yuvj420p")
    assert suffix_for(VideoFile(clip), copy=True) == ".mkv"
    assert suffix_for(VideoFile(clip), copy=False) == ".mp4"


def test_the_same_cut_gives_the_same_bytes(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", astronaut_frames(25, (160, 120)))
    for name in ("one.mp4", "two.mp4"):
        with VideoFile(clip) as source:
            encode_window(source, tmp_path / name, Window(0.2, 0.6))
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
