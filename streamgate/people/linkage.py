"""Complete-linkage clustering of track templates, which finds the tracks that show the same person.

The similarity of two tracks is the similarity of their templates (`Template.similarity`). The similarity of two groups
is the lowest similarity between a track of one group and a track of the other. The most similar groups are merged
first, as long as their similarity reaches the threshold. Therefore, all pairs of tracks in a group reach the threshold:
a chain of people who look alike never merges two persons. Two groups are not merged if a track of one was seen at the
same time as a track of the other, unless both tracks show the same picture (see `TWICE`).

For up to `BLOCK` new tracks, the result is exact. More tracks are processed in blocks: the tracks of a block are merged
with each other and with existing groups, but existing groups are not merged with each other. Memory is linear in the
number of tracks (one block is compared with all tracks), and each block requires one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamgate.frames import Array

BLOCK = 512
"""Number of new tracks that are compared with all other tracks at once; with 20,000 known tracks, this takes 40 MB."""

TWICE = 0.93
"""Minimum similarity at which two tracks seen at the same time count as one picture shown twice, for example on a video
wall, and not as two persons. The similarity of a picture and its copy, plain or mirrored, is 0.96 to 0.99."""

_APART = -np.inf
"""Lower than every similarity."""


def link(
    vectors: Array,
    offsets: Array,
    spans: Array,
    groups: Sequence[int | None],
    threshold: float,
    persons: Sequence[int] = (),
) -> list[int]:
    """Assign a group to every track whose group is None, and return all groups; new groups get the next free numbers.

    Args:
        vectors: float32 (N, D), unit length; a row of zeros for a track that joins no group.
        offsets: float32 (N,), `Template.offset` of each track.
        spans: float64 (N, 3), when each track was seen: the number of its source, and the pts of its first and last
            frame in seconds.
        groups: the group number or None of each of the N tracks; given numbers do not change.
        threshold: the minimum similarity of two tracks of one person.
        persons: the person of each known group; a group beyond the end of the list is a person by itself. A track
            joins no group of a person that was seen at the same time as the track.
    """
    found = np.array([-1 if group is None else group for group in groups], np.intp)
    owners = list(persons) + list(range(len(persons), max([*found.tolist(), -1]) + 1))
    new = np.flatnonzero(found < 0)
    for start in range(0, len(new), BLOCK):
        block = new[start : start + BLOCK]
        joined = _link_block(vectors, offsets, spans, found, np.array(owners, np.intp), block, threshold)
        # New groups are numbered in the order of their first tracks, so that the numbers are reproducible.
        numbers: dict[int, int] = {}
        for index, label in zip(block, joined, strict=True):
            if label >= 0:
                found[index] = label
                continue
            if label not in numbers:
                numbers[label] = len(owners)
                owners.append(len(owners))
            found[index] = numbers[label]
    return found.tolist()


def _link_block(
    vectors: Array, offsets: Array, spans: Array, groups: Array, owners: Array, block: Array, threshold: float
) -> list[int]:
    """For each track of the block: the known group that it joins, or -1 - (first row of its group) for a new group."""
    known = np.flatnonzero(groups >= 0)
    likeness = [_between(vectors[block], offsets[block], spans[block])]
    columns = np.zeros(0, np.intp)
    # Tracks without a vector are left out; otherwise, no other track could join their group.
    telling = known[vectors[known].any(axis=1)]
    if len(telling):
        telling = telling[np.argsort(groups[telling], kind="stable")]
        alike = _similarities(vectors[block], offsets[block], vectors[telling], offsets[telling])
        columns, starts = np.unique(groups[telling], return_index=True)
        nearest = np.minimum.reduceat(alike, starts, axis=1)
        near = (nearest >= threshold).any(axis=0)
        nearest, columns = nearest[:, near], columns[near]
        _keep_apart(nearest, owners[columns], spans[block], spans[known], owners[groups[known]])
        likeness.append(nearest)
    table = np.concatenate(likeness, axis=1)
    return _agglomerate(table, len(block), columns, threshold)


def _between(rows: Array, offsets: Array, spans: Array) -> Array:
    """Similarities of a block's tracks, (K, K); `_APART` for tracks seen at the same time in different pictures."""
    table = _similarities(rows, offsets, rows, offsets)
    source, first, last = spans.T
    together = source[:, None] == source
    together &= np.maximum(first[:, None], first) <= np.minimum(last[:, None], last)
    table[together & (table < TWICE)] = _APART
    np.fill_diagonal(table, _APART)
    return table


def _keep_apart(table: Array, owners: Array, spans: Array, known: Array, of_known: Array) -> None:
    """Set `_APART` for persons that a track may not join, because track and person were seen at the same time.

    Pairs that show the same picture (see `TWICE`) are exempt. `owners` are the persons of the table's columns;
    `of_known` are the persons of the `known` spans.
    """
    for row, (source, first, last) in enumerate(spans):
        beside = (known[:, 0] == source) & (known[:, 1] <= last) & (known[:, 2] >= first)
        if beside.any():
            table[row, np.isin(owners, of_known[beside]) & (table[row] < TWICE)] = _APART


def _agglomerate(table: Array, count: int, columns: Array, threshold: float) -> list[int]:
    """Merge rows of `table` (K, K + G) with each other and into the groups of its last G columns, most similar first.

    Ties go to the earlier row, then to the earlier column. The table is overwritten.
    """
    joined: list[list[int]] = [[row] for row in range(count)]
    result = [-1 - row for row in range(count)]
    best = table.argmax(axis=1)
    value = table[np.arange(count), best]
    while count and value.max() >= threshold:
        row = int(value.argmax())
        column = int(best[row])
        if column >= count:
            group = int(columns[column - count])
            for one in joined[row]:
                result[one] = group
            # Tracks that join the group later have to be similar to this track as well.
            np.minimum(table[:, column], table[:, row], out=table[:, column])
            gone, changed = row, (row, column)
        else:
            row, gone = min(row, column), max(row, column)
            joined[row] = sorted(joined[row] + joined[gone])
            for one in joined[row]:
                result[one] = -1 - joined[row][0]
            np.minimum(table[row], table[gone], out=table[row])
            table[:, row] = np.minimum(table[:, row], table[:, gone])
            changed = (row, gone)
        table[gone] = table[:, gone] = _APART
        stale = np.flatnonzero(np.isin(best, changed) | (np.arange(count) == row))
        best[stale] = table[stale].argmax(axis=1)
        value[stale] = table[stale, best[stale]]
        value[gone] = _APART
    return result


def _similarities(rows: Array, offsets: Array, others: Array, of_others: Array) -> Array:
    """`Template.similarity` of all pairs, float32 (K, M); `_APART` for rows of zeros.

    The similarities are rounded to four decimals, because the last bits of a product differ from machine to machine.
    """
    table = rows @ others.T
    table -= (offsets[:, None] + of_others) / 2
    table[~rows.any(axis=1)] = _APART
    table[:, ~others.any(axis=1)] = _APART
    return np.round(table, 4)
