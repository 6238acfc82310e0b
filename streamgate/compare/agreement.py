"""Agreement of a measure with human judgements: rank and linear correlations, AUC, bootstrap intervals.

A bootstrap sample is represented by the number of times that it contains each row, so that a few matrix products
compute the values of all samples.
"""

from __future__ import annotations

import numpy as np

from streamgate.frames import Array

MIN_ROWS = 10
"""Minimum number of rows for a result."""
MIN_PER_CLASS = 3
"""Minimum number of good rows, and of bad rows, for an AUC."""
DRAWS = 400
_FULL_DRAWS = 2_000
"""Maximum number of rows for which Kendall's correlation uses all draws; the cost of this correlation grows with the
square of the number of rows."""
_MIN_DRAWS = 40
_BLOCK = 256


Estimate = tuple[float, float, float]
"""A value, and the lower and upper end of its 95 % bootstrap interval."""


def agreement(
    values: Array, human: Array, good: Array, bad: Array, *, clusters: Array | None = None, seed: int = 0
) -> dict[str, Estimate]:
    """Compare the values of a measure with human judgements; both are float (N,), and higher is better.

    The result has `srcc` and `krcc`, Spearman's and Kendall's (tau-b) rank correlation, -1..1; `plcc`, Pearson's
    correlation after a monotone (logistic) curve was fitted to the measure; and, if there are good and bad rows, `auc`,
    the probability that a good row has a higher value than a bad one. The result is empty if `values` or `human` is
    constant.

    Args:
        good, bad: bool (N,): the rows that the AUC compares.
        clusters: (N,): rows with the same value are drawn together, because they are not independent.
    """
    if len(np.unique(values)) < 2 or len(np.unique(human)) < 2:
        return {}
    counts = _draws(len(values), clusters, seed)
    few = max(_MIN_DRAWS, int(DRAWS * min(1.0, (_FULL_DRAWS / len(values)) ** 2)))
    ranks = _ranks(values, counts), _ranks(human, counts)
    curve = _monotone(values, human)
    figures = {
        "srcc": _correlation(*ranks, counts),
        "krcc": _kendall(values, human, counts[: few + 1]),
        "plcc": _correlation(curve[None], human[None], counts),
    }
    if min(good.sum(), bad.sum()) >= MIN_PER_CLASS:
        figures["auc"] = _auc(values, good, bad, counts)
    return {name: _estimate(drawn) for name, drawn in figures.items()}


def _draws(count: int, clusters: Array | None, seed: int) -> Array:
    """How often each row was drawn, float64 (1 + DRAWS, N); the first row is the original table."""
    rng = np.random.default_rng(seed)
    _, member = np.unique(np.arange(count) if clusters is None else clusters, return_inverse=True)
    units = int(member.max()) + 1
    drawn = rng.multinomial(units, np.full(units, 1.0 / units), size=DRAWS)
    return np.concatenate([np.ones((1, count)), drawn[:, member]]).astype(np.float64)


def _estimate(drawn: Array) -> Estimate:
    low, high = np.nanquantile(drawn[1:], (0.025, 0.975)) if np.isfinite(drawn[1:]).any() else (np.nan, np.nan)
    return float(drawn[0]), float(low), float(high)


def _tied(values: Array) -> tuple[Array, Array, Array]:
    """The order that sorts `values`, the start of each run of equal values in this order, and each row's run index."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    run = np.empty(len(values), np.intp)
    run[order] = np.cumsum(new) - 1
    return order, np.nonzero(new)[0], run


def _ranks(values: Array, counts: Array) -> Array:
    """The rank of each row in each draw, ties averaged, (draws, N)."""
    order, starts, run = _tied(values)
    each = np.add.reduceat(counts[:, order], starts, axis=1)
    return np.asarray((np.cumsum(each, axis=1) - each / 2)[:, run])


def _correlation(x: Array, y: Array, counts: Array) -> Array:
    """Pearson's correlation in each draw; NaN if either side is constant."""
    total = counts.sum(axis=1, keepdims=True)
    x = x - (counts * x).sum(axis=1, keepdims=True) / total
    y = y - (counts * y).sum(axis=1, keepdims=True) / total
    power = (counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(power > 1e-18, (counts * x * y).sum(axis=1) / np.sqrt(power), np.nan)


def _kendall(values: Array, human: Array, counts: Array) -> Array:
    """Kendall's tau-b in each draw."""
    counts = counts.astype(np.float32)
    both, ours, theirs = np.zeros((3, len(counts)))
    for start in range(0, len(values), _BLOCK):
        rows = slice(start, start + _BLOCK)
        one = np.sign(values[rows, None] - values[None]).astype(np.float32)
        other = np.sign(human[rows, None] - human[None]).astype(np.float32)
        for total, signs in ((both, one * other), (ours, np.abs(one)), (theirs, np.abs(other))):
            total += (counts[:, rows] * (counts @ signs.T)).sum(axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(ours * theirs > 0, both / np.sqrt(ours * theirs), np.nan)


def _auc(values: Array, good: Array, bad: Array, counts: Array) -> Array:
    """Share of correctly ordered pairs of a good and a bad row in each draw; ties count as half."""
    order, starts, _ = _tied(values)
    goods, bads = (np.add.reduceat((counts * kind)[:, order], starts, axis=1) for kind in (good, bad))
    won = (goods * (np.cumsum(bads, axis=1) - bads / 2)).sum(axis=1)
    pairs = goods.sum(axis=1) * bads.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, won / pairs, np.nan)


def _monotone(values: Array, human: Array) -> Array:
    """The increasing logistic function of the values that correlates best with the human scores, (N,).

    The offset and height of the curve do not affect a correlation, so only its midpoint and width are varied.
    """
    low, high = np.quantile(values, (0.05, 0.95))
    spread = max(high - low, (values.max() - values.min()) / 20)
    indexes = np.unique(np.quantile(values, np.linspace(0.02, 0.98, 25)))
    widths = spread * np.geomspace(0.02, 5.0, 14)
    grid = np.stack([1.0 / (1.0 + np.exp(np.clip(-(values - x0) / w, -60, 60))) for x0 in indexes for w in widths])
    found = _correlation(grid, human[None], np.ones((1, len(values))))
    # Find the maximum or, if the plain correlation is negative, the minimum, so that the sign is kept.
    rising = np.nan_to_num(_correlation(values[None], human[None], np.ones((1, len(values))))[0]) >= 0
    return np.asarray(grid[np.nanargmax(found if rising else -found)])
