"""The matching is the best there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from streamgate.tracking.assignment import assign


def best_by_trying(cost: np.ndarray) -> float:
    rows, columns = cost.shape
    if rows > columns:
        return best_by_trying(cost.T)
    return min(
        sum(cost[row, column] for row, column in enumerate(choice))
        for choice in itertools.permutations(range(columns), rows)
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 3), (4, 6), (6, 4), (6, 6)])
def test_the_total_is_the_least_possible(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(shape[0] * 10 + shape[1])
    for _ in range(25):
        cost = random.random(shape)
        pairs = assign(cost)
        assert len(pairs) == min(shape)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        assert sum(cost[pair] for pair in pairs) == pytest.approx(best_by_trying(cost))


def test_nothing_to_match() -> None:
    assert assign(np.zeros((0, 3))) == []
    assert assign(np.zeros((3, 0))) == []
