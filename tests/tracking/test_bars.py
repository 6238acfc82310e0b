"""Black bars of letter and pillar boxes."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.frames import Frame
from streamgate.sources import picture_of_rgb
from streamgate.tracking.bars import BarDetector
from support.media import astronaut


def frame(pts: float, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0, gain: float = 1.0) -> Frame:
    """The astronaut, 320 x 240, with noisy black bars of so many pixels laid over it."""
    rgb = astronaut(320, 240).astype(np.float32) * gain
    noise = np.random.default_rng(int(pts * 100)).normal(10, 2, rgb.shape)
    inside = np.zeros(rgb.shape[:2], bool)
    inside[top : 240 - bottom, left : 320 - right] = True
    rgb = np.where(inside[..., None], rgb, noise)
    return Frame(picture_of_rgb(np.clip(rgb, 0, 255).astype(np.uint8)), pts)


@pytest.mark.parametrize("bars", [{"top": 30, "bottom": 28}, {"left": 41, "right": 40}, {"top": 20, "left": 33}])
def test_bars_are_found_to_the_pixel(bars: dict[str, int]) -> None:
    detector = BarDetector()
    for index in range(5):
        shown = detector.shown(frame(index * 0.3, **bars), new_shot=index == 0)
    whole = {"top": 0, "bottom": 0, "left": 0, "right": 0} | bars
    expected = [whole["left"], whole["top"], 320 - whole["right"], 240 - whole["bottom"]]
    assert shown == pytest.approx(np.array(expected), abs=1)


@pytest.mark.parametrize("gain", [1.0, 0.12, 0.0])
def test_a_dark_scene_has_none(gain: float) -> None:
    assert BarDetector().shown(frame(0.0, gain=gain), new_shot=True).tolist() == [0, 0, 320, 240]


def test_what_is_black_only_for_a_while_is_no_bar_and_the_next_shot_begins_anew() -> None:
    detector = BarDetector()
    detector.shown(frame(0.0, top=40), new_shot=True)
    assert detector.shown(frame(0.5), new_shot=False).tolist() == [0, 0, 320, 240]
    # Found in the first second, a shot's bars stay.
    assert detector.shown(frame(2.0, top=40), new_shot=False).tolist() == [0, 0, 320, 240]
    assert detector.shown(frame(3.0, top=40), new_shot=True)[1] == pytest.approx(40, abs=1)
