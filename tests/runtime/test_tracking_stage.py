"""How often faces are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.frames import Array, Face, Frame
from streamgate.networks.batcher import InferenceRequest
from streamgate.runtime.tracking_stage import TrackingStage
from streamgate.sources import picture_of_rgb

WIDTH, HEIGHT, FPS = 320, 240, 25
PICTURE = picture_of_rgb(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))


def looks(side: float, left: Callable[[float], float], seconds: float) -> list[float]:
    """Times at which a face `side` pixels wide was looked for; `left` says where its left edge is."""
    now = 0.0
    asked: list[float] = []

    def frames() -> Iterator[Frame]:
        nonlocal now
        for index in range(round(seconds * FPS)):
            now = index / FPS
            yield Frame(PICTURE, now, duration_seconds=1 / FPS, frame_index=index)

    def infer(requests: Sequence[InferenceRequest]) -> list[Any]:
        asked.append(now)
        return [[face(side * scale(one.crop), left(now) * scale(one.crop))] for one in requests]

    tracking = TrackingStage(load_config(), infer)
    assert len(list(tracking.tracked_frames(frames()))) == round(seconds * FPS)
    return asked


def scale(thumbnail: Array) -> float:
    return thumbnail.shape[1] / WIDTH


def face(side: float, left: float) -> Face:
    box = np.array([left, 20, left + side, 20 + side], np.float32)
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    return Face(box, points * side + box[:2], 0.99)


@pytest.mark.parametrize(("side", "close"), [(60, True), (15, False)])
def test_a_new_or_fast_face_is_watched_closely_unless_it_is_too_small_to_be_kept(side: int, close: bool) -> None:
    config = load_config()
    smallest = config.smallest_face_px(WIDTH, HEIGHT)
    assert (side > smallest) is close
    asked = np.array(looks(side, lambda now: 20 + 1.5 * side * max(0.0, now - 2.0), 3.6))
    young, steady, fast = (asked[(asked >= a) & (asked < b)] for a, b in ((0, 0.5), (1, 2), (2.8, 3.6)))
    dense, usual = config.advanced.dense_interval_s, config.detection.interval_s
    assert np.diff(steady).min() > 0.9 * usual
    for lively in (young, fast):
        assert bool(np.diff(lively).max() < dense + 1.5 / FPS) is close, lively
