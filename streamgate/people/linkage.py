"""Complete linkage of track templates: which tracks show one person.

Two groups of tracks are as alike as their least alike pair, and merge, most alike first, while that reaches the
threshold and no track of one was seen together with a track of the other. So every pair of tracks of a group is alike
enough by itself: a chain of look-alikes never makes one person of two.

Up to `BLOCK` new tracks this is exact. More come in blocks, in their order: those of a block are merged with each other
and with the groups that are there, which are not merged with each other any more. Memory is linear in the tracks (one
block against all), time is one matrix product a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamgate.frames import Array

BLOCK = 512
"""New tracks that are compared with all others at once; of 20,000 known ones that takes 40 MB."""

_APART = -2.0
"""Below every cosine."""


@dataclass(frozen=True, slots=True)
class TrackSpan:
    """When a track was seen: a source by its number, pts seconds of the first and last frame."""

    source: int
    first_pts: float
    last_pts: float


@dataclass(slots=True)
class Linkage:
    """Tracks in groups.

    Attributes:
        vectors: float32 (N, D), unit length; a row of zeros for a track that joins nobody.
        spans: N of them.
        groups: N group numbers; those that are given stay. A new group gets the next free number.
    """

    vectors: Array
    spans: Sequence[TrackSpan]
    groups: list[int | None]


def link(linkage: Linkage, threshold: float, persons: Sequence[int] = ()) -> list[int]:
    """Put every track whose group is None into one, and return the groups of all.

    `persons` says for each known group which person it is part of (itself where the list ends): a track is kept out of
    all groups of a person that it was seen together with.
    """
    groups = [-1 if group is None else group for group in linkage.groups]
    owners = list(persons) + list(range(len(persons), max([*groups, -1]) + 1))
    new = [place for place, group in enumerate(groups) if group < 0]
    for start in range(0, len(new), BLOCK):
        block = new[start : start + BLOCK]
        joined = _link_block(linkage, groups, owners, block, threshold)
        # In the order of their first tracks, so that the numbers depend on nothing else.
        numbers: dict[int, int] = {}
        for place, label in zip(block, joined, strict=True):
            if label >= 0:
                groups[place] = label
                continue
            if label not in numbers:
                numbers[label] = len(owners)
                owners.append(len(owners))
            groups[place] = numbers[label]
    return groups


def _link_block(
    linkage: Linkage, groups: Sequence[int], owners: Sequence[int], block: Sequence[int], threshold: float
) -> list[int]:
    """For each track of the block the known group that it joins, or -1 - (a row of the block) for a new one."""
    known = np.array([place for place, group in enumerate(groups) if group >= 0], np.intp)
    rows = linkage.vectors[block]
    likeness = [_between(rows, linkage, block)]
    columns = np.zeros(0, np.intp)
    # A track that tells nothing says nothing against the others of its group either.
    telling = known[linkage.vectors[known].any(axis=1)] if len(known) else known
    if len(telling):
        nearest, columns = _to_groups(rows, linkage, groups, telling)
        near = (nearest >= threshold).any(axis=0)
        nearest, columns = nearest[:, near], columns[near]
        _keep_apart(nearest, columns, linkage, groups, owners, block, known)
        likeness.append(nearest)
    table = np.concatenate(likeness, axis=1)
    return _agglomerate(table, len(block), columns, threshold)


def _between(rows: Array, linkage: Linkage, block: Sequence[int]) -> Array:
    """Cosines of a block's tracks, (K, K); apart where they were seen together."""
    table = _rounded(rows @ rows.T)
    spans = [linkage.spans[place] for place in block]
    source = np.array([span.source for span in spans])
    first = np.array([span.first_pts for span in spans])
    last = np.array([span.last_pts for span in spans])
    together = source[:, None] == source
    together &= np.maximum(first[:, None], first) <= np.minimum(last[:, None], last)
    # A track is seen together with itself: the diagonal is apart too.
    table[together] = _APART
    return table


def _to_groups(rows: Array, linkage: Linkage, groups: Sequence[int], known: Array) -> tuple[Array, Array]:
    """Least cosine of each row to the members of each known group, (K, G), and the groups' numbers."""
    labels = np.array([groups[place] for place in known])
    order = np.argsort(labels, kind="stable")
    columns, starts = np.unique(labels[order], return_index=True)
    table = _rounded(rows @ linkage.vectors[known[order]].T)
    return np.minimum.reduceat(table, starts, axis=1), columns


def _keep_apart(
    table: Array,
    columns: Array,
    linkage: Linkage,
    groups: Sequence[int],
    owners: Sequence[int],
    block: Sequence[int],
    known: Array,
) -> None:
    """Set apart what a track may not join: persons that it was seen together with."""
    owner = np.array([owners[column] for column in columns])
    spans = [linkage.spans[place] for place in known]
    source = np.array([span.source for span in spans])
    first = np.array([span.first_pts for span in spans])
    last = np.array([span.last_pts for span in spans])
    of_known = np.array([owners[groups[place]] for place in known])
    for row, place in enumerate(block):
        span = linkage.spans[place]
        beside = (source == span.source) & (first <= span.last_pts) & (last >= span.first_pts)
        if beside.any():
            table[row, np.isin(owner, of_known[beside])] = _APART


def _agglomerate(table: Array, count: int, columns: Array, threshold: float) -> list[int]:
    """Merge rows of `table` (K, K + G) with each other and into its last G columns, most alike first.

    Ties go to the earlier row, then to the earlier column. The table is used up.
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
            # Who joins later has to be like this one as well.
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


def _rounded(table: Array) -> Array:
    """Cosines to four places: the last bits of a product differ from machine to machine."""
    return np.round(table, 4)
