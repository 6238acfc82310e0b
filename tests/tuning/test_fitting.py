"""Weights and mappings from faces that people judged."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.tuning import fitting
from streamgate.tuning.fitting import BAD, GOOD, USABLE, FitData, Fusion, fit, out_of_clip, picks

START = Fusion(np.full(3, 0.5), np.array([0.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0]), np.array([True, True, False]))


def faces(tracks: int = 12, each: int = 40, seed: int = 0) -> FitData:
    """The first measure decides (good above 1, bad below -1), the second is noise, the third is against it."""
    rng = np.random.default_rng(seed)
    first = rng.normal(0, 2, tracks * each)
    values = np.stack([first, rng.normal(0, 2, tracks * each), -first + rng.normal(0, 1, tracks * each)], axis=1)
    grades = np.where(first > 1, GOOD, np.where(first < -1, BAD, USABLE))
    number = np.repeat(np.arange(tracks), each)
    return FitData(values, grades, number, number // 2, np.zeros(len(grades), bool))


def test_what_people_go_by_gets_the_weight() -> None:
    judged = faces()
    fitted = fit(judged, START)
    assert fitted.weight[0] > 3 * fitted.weight[1] and fitted.weight[0] > 5 * fitted.weight[2]
    assert (fitted.weight > 0).all()
    chosen = picks(judged, fitted.log_quality(judged.values))
    assert len(chosen) == 12 and (judged.grades[chosen] == GOOD).all()


def test_what_may_not_move_stays_and_a_fit_is_repeatable() -> None:
    judged = faces()
    one, other = fit(judged, START), fit(judged, START)
    assert one.x0[2] == START.x0[2] and one.w[2] == START.w[2] and one.x0[0] != START.x0[0]
    assert (one.weight == other.weight).all() and (one.x0 == other.x0).all()
    assert (np.abs(one.x0 - START.x0) <= 2 * START.w).all()


def test_better_values_never_lower_the_quality() -> None:
    fitted = fit(faces(), START)
    rising = np.linspace(-5, 5, 50)
    for measure in range(3):
        values = np.zeros((50, 3))
        values[:, measure] = rising
        assert (np.diff(fitted.log_quality(values)) >= 0).all()


def test_the_slope_is_that_of_the_loss() -> None:
    judged = faces(4, 12)
    better, worse, share = fitting._pairs(judged, np.random.default_rng(0))

    def loss(moves: np.ndarray) -> float:
        fusion = fitting._moved(START, moves)
        total = -np.logaddexp(0.0, -(judged.values - fusion.x0) / fusion.w) @ fusion.weight
        return float((np.logaddexp(0.0, -fitting._SHARPNESS * (total[better] - total[worse])) * share).sum())

    moves = np.random.default_rng(1).normal(0, 0.3, 9)
    slope = fitting._slope(judged.values, better, worse, share, START, moves)
    for index, step in enumerate(np.eye(9) * 1e-5):
        assert slope[index] == pytest.approx((loss(moves + step) - loss(moves - step)) / 2e-5, rel=1e-3, abs=1e-6)


def test_every_face_is_judged_by_a_fit_that_never_saw_its_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = faces()
    seen: list[set[int]] = []
    monkeypatch.setattr(fitting, "fit", lambda some, start, seed: seen.append(set(some.clips.tolist())) or start)
    out_of_clip(judged, START, folds=3)
    assert len(seen) == 3 and all(seen) and set.intersection(*seen) == set()
    assert all(sum(clip in one for one in seen) == 2 for clip in range(6))


def test_faces_of_one_grade_teach_nothing() -> None:
    judged = faces()
    with pytest.raises(ValueError, match="nothing to learn from"):
        fit(judged.of(judged.grades == GOOD), START)
