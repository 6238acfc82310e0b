"""Quality over time (DESIGN 4.5)."""

from __future__ import annotations

import pytest

from streamgate.selection.smoothing import QualityHistory


def test_the_vector_of_the_design() -> None:
    history = QualityHistory(0.2, 2.0)
    points = [(0.0, 50.0), (0.033, 90.0), (0.066, 52.0)]
    for point in points:
        history.add(*point)
    assert [history.smoothed(*point) for point in points] == [50.0, 52.0, 52.0]


def test_the_window_is_half_to_either_side_and_includes_its_ends() -> None:
    history = QualityHistory(0.2, 2.0)
    for point in [(0.9, 10.0), (1.0, 90.0), (1.1, 20.0), (1.11, 99.0)]:
        history.add(*point)
    assert history.smoothed(1.0, 90.0) == 20.0
    assert history.context(1.0, 90.0) == pytest.approx((10 + 90 + 20 + 99) / 4)


def test_smoothing_never_raises_a_quality() -> None:
    history = QualityHistory(0.2, 2.0)
    for point in [(0.0, 80.0), (0.05, 30.0), (0.1, 90.0)]:
        history.add(*point)
    assert history.smoothed(0.05, 30.0) == 30.0


def test_what_nobody_can_see_any_more_is_forgotten() -> None:
    history = QualityHistory(0.2, 2.0)
    for index in range(1000):
        history.add(index * 0.1, 50.0)
    history.forget(90.0, [10.0], 1.0)
    assert history.context(10.0, 50.0) == 50.0
    assert len(history._times) < 130
