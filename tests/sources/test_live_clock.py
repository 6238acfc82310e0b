"""Time of live frames, whatever the camera's clock does."""

from __future__ import annotations

import time

from streamgate.sources.live_clock import lateness, live_clock, pacing


def stamps(frames: list[tuple[float | None, float]]) -> list[tuple[float, bool]]:
    stamp = live_clock()
    return [(round(seconds, 3), estimated) for seconds, estimated in (stamp(*frame) for frame in frames)]


def test_time_counts_from_the_first_frame():
    assert stamps([(100.0, 5.0), (100.04, 5.1), (100.08, 5.11)]) == [(0.0, False), (0.04, False), (0.08, False)]


def test_a_pause_of_the_camera_is_a_pause():
    assert stamps([(0.0, 0.0), (10.0, 10.02)]) == [(0.0, False), (10.0, False)]


def test_a_burst_after_a_hold_up_keeps_the_cameras_times():
    assert stamps([(0.0, 0.0), (0.04, 3.0), (0.08, 3.0)]) == [(0.0, False), (0.04, False), (0.08, False)]


def test_a_leap_of_the_cameras_clock_is_taken_out():
    assert stamps([(0.0, 0.0), (3600.0, 0.04), (3600.04, 0.08)]) == [(0.0, False), (0.04, True), (0.08, False)]


def test_a_step_back_goes_on_by_arrival():
    assert stamps([(50.0, 0.0), (50.04, 0.04), (2.0, 0.5), (2.04, 0.54)]) == [
        (0.0, False), (0.04, False), (0.5, True), (0.54, False),
    ]  # fmt: skip


def test_missing_times_come_from_arrival_and_increase():
    found = stamps([(None, 0.0), (None, 0.04), (None, 0.04), (7.0, 0.2), (7.04, 0.24)])
    times = [seconds for seconds, _ in found]
    assert times == sorted(set(times)) and [estimated for _, estimated in found] == [True, True, True, True, False]


def test_times_strictly_increase_under_anything():
    import random

    stamp, rng, arrived, before = live_clock(), random.Random(3), 0.0, -1.0
    for _ in range(3000):
        arrived += rng.choice([0.0, 0.001, 0.04, 1.0])
        pts = rng.choice([None, rng.uniform(-5, 5), rng.uniform(0, 1e6), arrived])
        seconds, _ = stamp(pts, arrived)
        assert seconds > before
        before = seconds


def test_pace_waits_for_a_frames_time_and_starts_anew_after_a_leap():
    wait = pacing()
    began = time.monotonic()
    moments = [wait(pts) for pts in (5.0, 5.1, 500.0, 3.0, 3.1)]
    steps = [after - before for before, after in zip([began, *moments], moments, strict=False)]
    assert steps[1] >= 0.09 and steps[4] >= 0.09
    assert time.monotonic() - began < 60


def test_lateness_is_what_exceeds_the_least_delay_and_forgives_drift():
    late_by = lateness()
    assert late_by(0.0, 100.0) == 0.0
    assert late_by(1.0, 103.5) == 2.5
    assert late_by(2.0, 102.0) == 0.0
    # A camera whose clock loses a second an hour is never late for that.
    worst = max(late_by(2.0 + step * (1 - 1 / 3600), 102.0 + step) for step in range(86400))
    assert worst < 0.1
