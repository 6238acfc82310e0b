"""Statistics of a comparison against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from streamgate.compare.agreement import agreement


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    """Values with ties, and grades 0, 1, 2 that they follow."""
    rng = np.random.default_rng(3)
    grades = rng.integers(0, 3, 300).astype(float)
    return np.round(grades + rng.normal(0, 1, 300), 1), grades


def test_values_are_those_of_scipy(sample: tuple[np.ndarray, np.ndarray]) -> None:
    values, grades = sample
    found = agreement(values, grades, grades == 2, grades == 0)
    assert found["srcc"][0] == pytest.approx(stats.spearmanr(values, grades)[0], abs=1e-9)
    assert found["krcc"][0] == pytest.approx(stats.kendalltau(values, grades)[0], abs=1e-6)
    good, bad = values[grades == 2], values[grades == 0]
    pairs = stats.mannwhitneyu(good, bad)[0] / (len(good) * len(bad))
    assert found["auc"][0] == pytest.approx(pairs, abs=1e-9)


def test_intervals_hold_the_value_and_shrink_with_more_rows(sample: tuple[np.ndarray, np.ndarray]) -> None:
    values, grades = sample
    few, many = (agreement(values[:n], grades[:n], grades[:n] == 2, grades[:n] == 0) for n in (30, 300))
    assert [*few] == [*many] == ["srcc", "krcc", "plcc", "auc"]
    for (value, low, high), (other, lowest, highest) in zip(few.values(), many.values(), strict=True):
        assert low <= value <= high and lowest <= other <= highest
        assert highest - lowest < high - low


def test_a_curve_that_rises_is_fitted_before_the_linear_correlation() -> None:
    human = np.linspace(-4, 4, 200)
    values = 1 / (1 + np.exp(-5 * human))  # saturates: plainly only 0.87
    found = agreement(np.log(values + 1e-9), np.tanh(human), human > 9, human > 9)
    assert found["plcc"][0] > 0.98 and "auc" not in found


def test_what_runs_against_people_stays_negative(sample: tuple[np.ndarray, np.ndarray]) -> None:
    values, grades = sample
    found = agreement(-values, grades, grades == 2, grades == 0)
    assert max(found[name][0] for name in ("srcc", "krcc", "plcc")) < -0.4 and found["auc"][0] < 0.2


def test_rows_that_belong_together_widen_the_interval(sample: tuple[np.ndarray, np.ndarray]) -> None:
    values, grades = (np.repeat(one[:40], 5) for one in sample)
    alone = agreement(values, grades, grades == 2, grades == 0)
    together = agreement(values, grades, grades == 2, grades == 0, clusters=np.repeat(np.arange(40), 5))
    assert np.diff(together["srcc"][1:]) > 1.5 * np.diff(alone["srcc"][1:])


def test_nothing_is_said_where_a_side_is_constant() -> None:
    rising, flat = np.arange(20.0), np.zeros(20)
    assert not agreement(rising, flat, flat > 0, flat > 0)
    assert not agreement(flat, rising, flat > 0, flat > 0)
