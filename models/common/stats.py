"""Rank statistics with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 3, percent: bool = False) -> str:
        """`0.981 (0.975-0.986)`, `0.981 (-0.975 to 0.986)` with a negative lower end, or the same in per cent."""
        scale, unit = (100, " %") if percent else (1, "")
        value, low, high = (f"{end * scale:.{digits}f}" for end in (self.value, self.low, self.high))
        return f"{value}{unit} ({low}{' to ' if low.startswith('-') else '-'}{high})"


def bootstrap(statistic: Callable[[np.ndarray], float], count: int, draws: int = 1000, seed: int = 0) -> Estimate:
    """The value of statistic(indexes) and its interval, from resampling `count` faces with replacement."""
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(count, size=count)) for _ in range(draws)]
    low, high = np.quantile(values, (0.025, 0.975))
    return Estimate(float(statistic(np.arange(count))), float(low), float(high))


def mean_estimate(values: np.ndarray, draws: int = 1000, seed: int = 0) -> Estimate:
    """Mean of one value per face (a share if the values are 0 and 1)."""
    return bootstrap(lambda index: float(values[index].mean()), len(values), draws, seed)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; 0 if `a` or `b` is constant."""
    x, y = rankdata(a), rankdata(b)
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else 0.0


def spearman_rows(scores: np.ndarray, severities: np.ndarray) -> np.ndarray:
    """For each face, Spearman's correlation of the negated scores [faces, levels] with the severities: [faces]."""
    return np.array([spearman(-row, severities) for row in scores])


def spearman_across(scores: np.ndarray, severities: np.ndarray) -> float:
    """The same correlation over all faces and levels together."""
    return spearman(-scores.ravel(), np.tile(severities, len(scores)))


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive value exceeds a negative one (ties count half)."""
    ranks = rankdata(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def in_order(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """1 where better > worse, 0.5 where they are equal, else 0."""
    return (better > worse) + 0.5 * (better == worse)
