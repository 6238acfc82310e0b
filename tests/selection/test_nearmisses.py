"""Which rejected faces of a track are remembered."""

from __future__ import annotations

import numpy as np

from streamgate.faces import Face, GateResult
from streamgate.frames import Array, Picture
from streamgate.selection.near_misses import NearMisses
from streamgate.sources import picture_of_rgb
from streamgate.tracks import Candidate

FACE = Face(np.array([10, 10, 50, 50], np.float32), np.full((5, 2), 30, np.float32), 0.99)
REGION = picture_of_rgb(np.zeros((8, 8, 3), np.uint8))


def face(pts: float, *reasons: str, shortfall: float = 0.5) -> tuple[Candidate, Picture]:
    candidate = Candidate(
        FACE, track_id=1, pts_seconds=pts, gate=GateResult(not reasons, reasons, shortfall if reasons else 0.0)
    )
    return candidate, REGION


def remembered(*batches: list[tuple[Candidate, Picture]]) -> tuple[list[float], int]:
    """Times of the near misses, nearest first, and how many pictures were cut out for them."""
    cut: list[float] = []

    def make(candidate: Candidate, picture: Picture) -> Array:
        cut.append(candidate.pts_seconds)
        return np.zeros((1, 1, 3), np.uint8)

    misses = NearMisses(3, make)
    for batch in batches:
        misses.offer(batch)
    return [one.candidate.pts_seconds for one in misses.finish()], len(cut)


def test_fewer_reasons_come_first_and_then_who_is_nearer_to_the_limit() -> None:
    found, _ = remembered(
        [face(0.0, "yaw", "blurred", shortfall=0.01)],
        [face(2.0, "yaw", shortfall=0.4)],
        [face(4.0, "small", shortfall=0.1)],
    )
    assert found == [4.0, 2.0, 0.0]


def test_only_the_nearest_are_kept_and_those_that_passed_are_none() -> None:
    batches = [[face(2.0 * index, "yaw", shortfall=0.5 - index / 20)] for index in range(6)]
    assert remembered(*batches, [face(20.0)])[0] == [10.0, 8.0, 6.0]


def test_moments_beside_each_other_count_once() -> None:
    batches = [[face(pts, "yaw", shortfall=short)] for pts, short in ((0.0, 0.3), (0.5, 0.2), (0.9, 0.4))]
    assert remembered(*batches)[0] == [0.5]


def test_of_a_batch_at_most_one_picture_is_cut_out() -> None:
    batch = [face(index / 25, "yaw", shortfall=0.9 - index / 100) for index in range(50)]
    assert remembered(batch) == ([49 / 25], 1)


def test_where_landmarks_define_no_square_there_is_no_near_miss() -> None:
    misses = NearMisses(3, lambda candidate, picture: None)
    misses.offer([face(0.0, "yaw")])
    assert misses.finish() == []
