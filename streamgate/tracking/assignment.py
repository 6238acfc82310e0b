"""Finds the minimum-cost matching for a small, rectangular cost matrix."""

from __future__ import annotations

import numpy as np

from streamgate.frames import Array


def assign(cost: Array) -> list[tuple[int, int]]:
    """Match rows to columns with minimum total cost. Returns min(rows, columns) pairs; no row or column is repeated.

    The method is shortest augmenting paths with potentials (Jonker and Volgenant 1987), in O(n^2 m). Ties go to the
    lower index, so the result depends only on `cost` (rows, columns), whose values must be finite.
    """
    rows, columns = cost.shape
    if rows == 0 or columns == 0:
        return []
    if rows > columns:
        return sorted((row, column) for column, row in assign(cost.T))
    # Row 0 and column 0 are virtual; each augmenting path starts there.
    row_price = np.zeros(rows + 1)
    column_price = np.zeros(columns + 1)
    row_of = np.zeros(columns + 1, dtype=int)
    for row in range(1, rows + 1):
        row_of[0] = row
        current = 0
        reach = np.full(columns + 1, np.inf)
        came_from = np.zeros(columns + 1, dtype=int)
        done = np.zeros(columns + 1, dtype=bool)
        while True:
            done[current] = True
            here = row_of[current]
            open_columns = np.flatnonzero(~done)
            slack = cost[here - 1, open_columns - 1] - row_price[here] - column_price[open_columns]
            better = slack < reach[open_columns]
            reach[open_columns[better]] = slack[better]
            came_from[open_columns[better]] = current
            following = open_columns[int(np.argmin(reach[open_columns]))]
            step = reach[following]
            row_price[row_of[done]] += step
            column_price[done] -= step
            reach[~done] -= step
            current = int(following)
            if row_of[current] == 0:
                break
        while current:
            row_of[current] = row_of[came_from[current]]
            current = int(came_from[current])
    return sorted((int(row_of[column]) - 1, column - 1) for column in range(1, columns + 1) if row_of[column])
