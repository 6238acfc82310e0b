"""Which instant of the main stream a picture of the substream shows."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.service.stream_alignment import SIDE, Alignment, ArrivalClock, Look, Match, match

NOISE = np.random.default_rng(5)


def scene(seconds: float) -> np.ndarray:
    """A spot that wanders without ever repeating itself, and a still background."""
    y, x = np.mgrid[: SIDE[1], : SIDE[0]]
    at = 80 + 50 * np.sin(1.3 * seconds) + 10 * np.sin(4.1 * seconds), 45 + 25 * np.sin(0.77 * seconds + 1)
    spot = 120 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 150)
    grain = NOISE.normal(0, 2, spot.shape)
    return np.clip(60 + x / 4 + spot + grain, 0, 255).astype(np.uint8).ravel()


def looks(start: float, count: int, fps: float, lag: float = 0.0, still: bool = False) -> list[Look]:
    times = start + np.arange(count) / fps
    return [Look(float(time) + lag, scene(0.0 if still else float(time))) for time in times]


@pytest.mark.parametrize("lag", [-3.1, -0.5, 0.013, 1.7, 2.96])
def test_the_lag_is_found_wherever_it_is(lag: float):
    found = match(looks(4.0, 40, 25.0, lag), looks(0.0, 125, 12.5), 4.0, 0.04)
    assert found is not None and found.sure
    assert found.lag == pytest.approx(lag, abs=0.01)


def test_rates_may_differ():
    found = match(looks(4.0, 36, 30.0, 0.21), looks(0.0, 70, 8.0), 4.0, 1 / 30)
    assert found is not None and found.sure and found.lag == pytest.approx(0.21, abs=0.017)


def test_a_few_pictures_are_enough_near_by():
    found = match(looks(4.0, 8, 25.0, 0.05), looks(3.0, 30, 12.5), 0.15, 0.04)
    assert found is not None and found.sure and found.lag == pytest.approx(0.05, abs=0.01)


def test_what_does_not_move_tells_nothing():
    found = match(looks(4.0, 40, 25.0, 1.0, still=True), looks(0.0, 125, 12.5, still=True), 4.0, 0.04)
    assert found is not None and not found.sure
    assert match(looks(4.0, 1, 25.0), looks(0.0, 50, 12.5), 4.0, 0.04) is None
    assert match(looks(400.0, 40, 25.0), looks(0.0, 50, 12.5), 4.0, 0.04) is None


def test_a_lag_beyond_what_was_tried_is_not_taken_for_one():
    found = match(looks(4.0, 12, 25.0, 0.4), looks(2.0, 60, 12.5), 0.12, 0.04)
    assert found is not None and not found.sure and found.off_limits


def test_the_offset_follows_arrival_and_what_pictures_tell():
    alignment, main, sub = Alignment(), ArrivalClock(), ArrivalClock()
    assert alignment.offset is None and not alignment.found
    alignment.connected(main=main)
    alignment.connected(sub=sub)
    for n in range(50):
        sub.note(n * 0.04, 1000.0 + n * 0.04 + 0.1 * (n % 3))
        main.note(7000 + n * 0.04, 1001.0 + n * 0.04 + 0.1 * (n % 4))
    assert alignment.offset == pytest.approx(6999.0)
    alignment.learn(Match(0.5, 0.1), 0.04)
    assert not alignment.found
    for lag in (1.0, 0.04, 0.0):  # one comparison may be a picture off
        alignment.learn(Match(lag, 1.0), 0.04)
    assert alignment.found and alignment.offset == pytest.approx(7000.04, abs=0.05)
    before = alignment.offset
    for n in range(100):
        main.note(7000 + 90 + n * 0.04 + 0.4, 1001.0 + 90 + n * 0.04)
        sub.note(90 + n * 0.04, 1000.0 + 90 + n * 0.04)
    # No clock drifts so far in a moment: arrival only stuttered before.
    assert before < alignment.offset < before + 0.01
    alignment.connected(main=ArrivalClock())
    assert alignment.offset is None and not alignment.found and alignment.doubt < 1.0


def test_pictures_that_contradict_have_it_looked_for_again():
    alignment, main, sub = Alignment(), ArrivalClock(), ArrivalClock()
    main.note(7000.0, 100.0)
    sub.note(0.0, 100.0)
    alignment.connected(main=main, sub=sub)
    alignment.learn(Match(0.0, 1.0), 0.04)
    assert alignment.found
    alignment.doubted()
    alignment.doubted()
    alignment.learn(Match(0.0, 1.0), 0.04)
    for _ in range(3):
        assert alignment.found
        alignment.doubted()
    assert not alignment.found and alignment.doubt == 4.0


def test_an_offset_that_is_known_is_checked_now_and_then(monkeypatch: pytest.MonkeyPatch):
    now = 1000.0
    monkeypatch.setattr("streamgate.service.stream_alignment.time.monotonic", lambda: now)
    alignment, main, sub = Alignment(), ArrivalClock(), ArrivalClock()
    main.note(7000.0, now)
    sub.note(0.0, now)
    alignment.connected(main=main, sub=sub)
    for _ in range(3):
        assert alignment.due
        alignment.learn(Match(0.01, 1.0), 0.04)
    assert not alignment.due
    now += 20.0
    assert not alignment.due
    now += 20.0
    assert alignment.due
    alignment.learn(Match(0.0, 1.0), 0.04)
    assert not alignment.due
    alignment.suspect()
    assert alignment.due
    alignment.learn(Match(0.0, 1.0), 0.04)
    alignment.connected(main=ArrivalClock())
    assert alignment.due
