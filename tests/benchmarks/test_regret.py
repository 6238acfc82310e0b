"""Regret, percentile, recall: values worked out by hand."""

from __future__ import annotations

import pytest
from regret import Pick, Scored, evaluate, percentile, shown_seconds

BOX = (10.0, 10.0, 50.0, 60.0)
FAR = (200.0, 10.0, 240.0, 60.0)


def _face(pts: float, quality: float | None, passed: bool = True, box: tuple[float, ...] = BOX) -> Scored:
    return Scored(pts, box, quality, passed)


def _track(*qualities: float, box: tuple[float, ...] = BOX, passed: bool = True) -> list[Scored]:
    return [_face(index * 0.1, quality, passed, box) for index, quality in enumerate(qualities)]


def test_regret_is_the_best_passing_quality_less_the_reference_value_of_the_pick() -> None:
    tracks = {1: [*_track(50, 60, 70, 80, 55, 40, 30), _face(0.7, 99.0, passed=False)]}
    # The pick's own value does not count, only what the reference says of that face.
    (one,), strays = evaluate(tracks, [Pick(4, 0.2, (11.0, 11.0, 51.0, 61.0), 95.0)], 0.2, 2.0)
    assert strays == []
    assert (one.best.quality, one.at and one.at.quality, one.regret) == (80, 70, 10)
    assert one.percentile == pytest.approx(100 * 6 / 8)
    assert one.percentile_passing == pytest.approx(100 * 6 / 7)
    assert one.shown_s == pytest.approx(0.7) and one.counts_for_recall


def test_price_of_smoothing_is_what_the_exhaustive_choice_itself_loses() -> None:
    # 90 is a lucky frame: its median with the neighbours is 52, that of the plateau behind it 70.
    tracks = {1: _track(50, 90, 52, 70, 71, 70)}
    (one,), _ = evaluate(tracks, [Pick(1, 0.4, BOX, None)], 0.2, 2.0)
    assert one.own.quality == 71 and one.own_regret == 19
    assert (one.regret, one.smoothed_regret) == (19, 0)


def test_recall_misses_a_track_that_is_shown_and_has_no_pick() -> None:
    tracks = {
        1: _track(*[50.0] * 8),
        2: _track(*[60.0] * 8, box=FAR),
        3: _track(40, 40),
        4: _track(*[70.0] * 8, passed=False),
    }
    results, _ = evaluate(tracks, [Pick(1, 0.3, BOX, 50.0)], 0.2, 2.0)
    assert [(one.track_id, one.counts_for_recall, one.pick is not None) for one in results] == [
        (1, True, True),
        (2, True, False),
        (3, False, False),
    ]


def test_of_two_picks_in_a_split_track_the_better_counts_and_a_pick_nowhere_is_a_stray() -> None:
    tracks = {1: _track(50, 60, 70, 80)}
    picks = [Pick(1, 0.0, BOX, 50.0), Pick(2, 0.2, BOX, 70.0), Pick(3, 0.1, FAR, 60.0), Pick(4, 9.0, BOX, 60.0)]
    (one,), strays = evaluate(tracks, picks, 0.2, 2.0)
    assert one.regret == 10
    assert [pick.track_id for pick in strays] == [3, 4]


def test_a_pick_between_two_faces_takes_the_nearest_in_time() -> None:
    tracks = {1: [_face(0.0, 50.0), _face(0.12, 60.0)]}
    (one,), _ = evaluate(tracks, [Pick(1, 0.08, BOX, 55.0)], 0.2, 2.0)
    assert one.at is not None and one.at.quality == 60


def test_shown_seconds_count_faces_that_pass_and_no_long_gap() -> None:
    faces = [_face(0.0, 50.0), _face(0.1, 50.0, passed=False), _face(0.2, 50.0), _face(5.0, 50.0)]
    # 0.1 for the first, at most 0.25 for the one before the gap, the usual step for the last.
    assert shown_seconds(faces) == pytest.approx(0.1 + 0.25 + 0.1)


def test_percentile_of_the_best_is_100() -> None:
    assert percentile(3.0, [1.0, 2.0, 3.0]) == 100.0
