"""Rank statistics against values known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.common.stats import auc, bootstrap, in_order, mean_estimate, spearman, spearman_across, spearman_rows

LEVELS = np.arange(4)


def test_falling_scores_correlate_perfectly_with_severity() -> None:
    scores = np.array([[4.0, 3, 2, 1], [40, 30, 20, 10]])
    assert spearman_rows(scores, LEVELS) == pytest.approx([1, 1])
    # Across faces the second, brighter face mixes with the first.
    assert 0.4 < spearman_across(scores, LEVELS) < 0.6


def test_a_constant_score_has_no_correlation() -> None:
    assert spearman(np.ones(5), np.arange(5)) == 0


def test_auc_counts_ties_half() -> None:
    assert auc(np.array([1.0, 2]), np.array([1.0, 0])) == pytest.approx(0.875)
    assert in_order(np.array([1.0, 1, 2]), np.array([0.0, 1, 3])).tolist() == [1, 0.5, 0]


def test_the_interval_holds_the_value_and_shrinks_with_faces() -> None:
    rng = np.random.default_rng(0)
    few, many = (mean_estimate(rng.normal(size=n)) for n in (20, 2000))
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 4


def test_bootstrap_repeats_exactly() -> None:
    values = np.arange(30.0)
    first, second = (bootstrap(lambda i: float(values[i].mean()), 30) for _ in range(2))
    assert first == second
