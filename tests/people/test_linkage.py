"""Complete linkage of tracks."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.people import linkage
from streamgate.people.linkage import link


def at(*degrees: float) -> np.ndarray:
    """Unit vectors in the plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def plain(vectors: np.ndarray) -> np.ndarray:
    """Nobody has anything in common with many."""
    return np.zeros(len(vectors), np.float32)


def apart(count: int) -> np.ndarray:
    return np.array([(0, 10.0 * index, 10.0 * index + 5) for index in range(count)])


def linked(vectors: np.ndarray, threshold: float, spans: np.ndarray | None = None) -> list[int]:
    when = apart(len(vectors)) if spans is None else spans
    return link(vectors, plain(vectors), when, [None] * len(vectors), threshold)


SIXTY = float(np.cos(np.radians(60)))


def test_alike_tracks_are_one_and_a_chain_of_look_alikes_is_not() -> None:
    assert linked(at(0, 10, 90, 100), SIXTY) == [0, 0, 1, 1]
    # Each is alike to the next, the ends are not: the two most alike pairs stay pairs.
    assert linked(at(0, 40, 90, 121), SIXTY) == [0, 0, 1, 1]


def test_the_most_alike_merge_first_whatever_their_order() -> None:
    # 50 is nearer to 80 than to 0.
    assert linked(at(0, 50, 80), SIXTY) == [0, 1, 1]
    assert linked(at(80, 0, 50), SIXTY) == [0, 1, 0]


def test_tracks_seen_together_are_never_one() -> None:
    twins = at(0, 25, 12)
    spans = np.array([(0, 0.0, 2.0), (0, 2.0, 3.0), (1, 0.0, 3.0)])
    found = linked(twins, SIXTY, spans)
    assert found[0] != found[1] and found[2] in found[:2]
    # The same picture in two tiles of a display shows nobody twice.
    assert linked(at(0, 10, 12), SIXTY, spans) == [0, 0, 0]
    later = np.array([(0, 0.0, 2.0), (0, 2.1, 3.0), (0, 4.0, 5.0)])
    assert linked(twins, SIXTY, later) == [0, 0, 0]


def test_a_track_of_zeros_joins_nobody() -> None:
    vectors = at(0, 0, 0)
    vectors[1] = 0
    assert linked(vectors, SIXTY) == [0, 1, 0]


def test_known_groups_stay_apart_and_new_tracks_join_the_most_alike() -> None:
    vectors = at(0, 10, 20, 12)
    assert link(vectors, plain(vectors), apart(4), [5, 7, None, None], SIXTY) == [5, 7, 7, 7]


def test_nobody_joins_a_person_through_one_group_who_was_seen_with_another() -> None:
    vectors = at(0, 125, 30)
    spans = np.array([(0, 0.0, 1.0), (1, 0.0, 5.0), (1, 3.0, 4.0)])
    groups: list[int | None] = [0, 1, None]
    assert link(vectors, plain(vectors), spans, groups, SIXTY) == [0, 1, 0]
    # By hand both groups are one person, which the new track was seen together with.
    assert link(vectors, plain(vectors), spans, groups, SIXTY, [0, 0]) == [0, 1, 2]


def test_what_a_face_has_in_common_with_many_does_not_make_it_alike() -> None:
    vectors = at(0, 50, 180, 230)
    offsets = np.array([0.0, 0.0, 0.1, 0.3], np.float32)
    assert link(vectors, offsets, apart(4), [None] * 4, SIXTY) == [0, 0, 1, 2]
    # The same for tracks that come to known ones.
    assert link(vectors, offsets, apart(4), [0, None, 1, None], SIXTY) == [0, 0, 1, 2]
    assert link(vectors, offsets, apart(4), [0, None, 1, None], 0.4) == [0, 0, 1, 1]


def brute_force(vectors: np.ndarray, threshold: float) -> set[frozenset[int]]:
    groups = [frozenset([index]) for index in range(len(vectors))]
    while True:
        pairs = [
            (min(float(vectors[i] @ vectors[j]) for i in a for j in b), -x, -y)
            for x, a in enumerate(groups)
            for y, b in enumerate(groups[:x])
        ]
        if not pairs or max(pairs)[0] < threshold:
            return set(groups)
        _, x, y = max(pairs)
        merged = groups[-x] | groups[-y]
        groups = [group for index, group in enumerate(groups) if index not in (-x, -y)] + [merged]


@pytest.mark.parametrize("seed", range(5))
def test_it_is_complete_linkage(seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(40, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = linked(vectors, 0.6)
    groups = {frozenset(np.flatnonzero(np.array(found) == label).tolist()) for label in set(found)}
    assert groups == brute_force(vectors, 0.6)


def test_many_tracks_in_blocks_find_clear_people_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linkage, "BLOCK", 16)
    random = np.random.default_rng(1)
    people = random.normal(size=(12, 64))
    people /= np.linalg.norm(people, axis=1, keepdims=True)
    who = random.integers(0, 12, 300)
    vectors = (people[who] + random.normal(size=(300, 64)) * 0.04).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = linked(vectors, 0.6)
    assert len(set(found)) == 12
    assert len(set(zip(found, who.tolist(), strict=True))) == 12
    # Numbered by their first tracks.
    assert [found.index(label) for label in range(12)] == sorted(found.index(label) for label in range(12))
