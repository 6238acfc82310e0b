"""Complete-linkage clustering of track templates: which tracks show the same person.

The similarity of two tracks is that of their templates (`Template.similarity`), that of two groups of tracks is that of
their least similar pair. Groups are merged, most similar first, as long as the similarity reaches the threshold and no
track of one was seen together with a track of the other, except for the same picture shown twice. So every pair of
tracks in a group reaches the threshold: a chain of look-alikes never merges two persons.

Up to `BLOCK` new tracks this is exact. More are processed in blocks, in order: the tracks of a block are merged with
each other and with existing groups, while existing groups are no longer merged with each other. Memory is linear in the
tracks (one block against all), time is one matrix product per block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamgate.frames import Array

BLOCK = 512
"""New tracks that are compared with all others at once; with 20,000 known tracks this takes 40 MB."""

TWICE = 0.93
"""Similarity from which two tracks seen together count as one picture shown twice, plain or mirrored (0.96 to 0.99),
for example on a video wall, and not as two persons."""

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
        offsets: float32 (N,), `Template.offset` of each.
        spans: float64 (N, 3), when each was seen: number of the source, pts in seconds of the first and last frame.
        groups: N group numbers or None; given numbers do not change.
        threshold: the minimum similarity of two tracks of one person.
        persons: the person of each known group (beyond the end of the list, the group itself): a track joins no group
            of a person that it was seen together with.
    """
    found = np.array([-1 if group is None else group for group in groups], np.intp)
    owners = list(persons) + list(range(len(persons), max([*found.tolist(), -1]) + 1))
    new = np.flatnonzero(found < 0)
    for start in range(0, len(new), BLOCK):
        block = new[start : start + BLOCK]
        joined = _link_block(vectors, offsets, spans, found, np.array(owners, np.intp), block, threshold)
        # Numbered in the order of their first tracks, so that the numbers depend on nothing else.
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
    """For each track of the block the known group that it joins, or -1 - (a row of the block) for a new group."""
    known = np.flatnonzero(groups >= 0)
    likeness = [_between(vectors[block], offsets[block], spans[block])]
    columns = np.zeros(0, np.intp)
    # A track without a vector must not keep others out of its group.
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
    """Similarities of a block's tracks, (K, K); `_APART` for tracks seen together, unless they are the same picture."""
    table = _similarities(rows, offsets, rows, offsets)
    source, first, last = spans.T
    together = source[:, None] == source
    together &= np.maximum(first[:, None], first) <= np.minimum(last[:, None], last)
    table[together & (table < TWICE)] = _APART
    np.fill_diagonal(table, _APART)
    return table


def _keep_apart(table: Array, owners: Array, spans: Array, known: Array, of_known: Array) -> None:
    """Set `_APART` for persons that a track may not join: it was seen together with them in different pictures.

    `owners` are the persons of the table's columns, `of_known` those of the `known` spans.
    """
    for row, (source, first, last) in enumerate(spans):
        beside = (known[:, 0] == source) & (known[:, 1] <= last) & (known[:, 2] >= first)
        if beside.any():
            table[row, np.isin(owners, of_known[beside]) & (table[row] < TWICE)] = _APART


def _agglomerate(table: Array, count: int, columns: Array, threshold: float) -> list[int]:
    """Merge rows of `table` (K, K + G) with each other and into its last G columns, most similar first.

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
            # Tracks that join later have to be similar to this one as well.
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

    Rounded to four places, since the last bits of a product differ from machine to machine.
    """
    table = rows @ others.T
    table -= (offsets[:, None] + of_others) / 2
    table[~rows.any(axis=1)] = _APART
    table[:, ~others.any(axis=1)] = _APART
    return np.round(table, 4)
