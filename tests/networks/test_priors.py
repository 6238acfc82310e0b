"""Priors, decoding and suppression, without weights."""

from __future__ import annotations

import numpy as np

from streamgate.networks.priors import decode, priors, suppress


def test_priors_are_two_a_cell_level_by_level():
    grid = priors(64, 96)
    assert grid.shape == (2 * (8 * 12 + 4 * 6 + 2 * 3), 3)
    assert grid[:3].tolist() == [[4, 4, 16], [4, 4, 32], [12, 4, 16]]
    assert grid[-1].tolist() == [80, 48, 512]


def test_priors_are_computed_once_for_a_size_and_only_so_many_are_kept():
    priors.cache_clear()
    first = priors(32, 32)
    assert priors(32, 32) is first and not first.flags.writeable
    for side in range(1, 60):
        priors(32, 32 * side)
    assert priors.cache_info().currsize < 60
    again = priors(32, 32)
    assert again is not first and np.array_equal(again, first)


def test_figures_decode_relative_to_their_prior():
    chosen = np.array([[100, 50, 20]], np.float32)
    loc = np.array([[1, -1, 0, np.log(2) / 0.2]], np.float32)
    boxes, points = decode(loc, np.tile([1.0, 2.0], 5)[None].astype(np.float32), chosen)
    assert np.allclose(boxes, [[92, 28, 112, 68]])
    assert np.allclose(points, [[[102, 54]] * 5])


def test_suppression_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 100, (300, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (300, 2))], axis=1)
    scores = rng.integers(0, 20, 300) / 20

    def iou(a, b):
        wide = max(0, min(a[2], b[2]) - max(a[0], b[0]))
        high = max(0, min(a[3], b[3]) - max(a[1], b[1]))
        return wide * high / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high)

    kept = []
    for i in sorted(range(300), key=lambda i: (-scores[i], i)):
        if all(iou(boxes[i], boxes[j]) <= 0.4 for j in kept):
            kept.append(i)
    assert suppress(boxes, scores, 0.4).tolist() == kept


def test_of_equal_scores_the_earlier_prior_wins_and_nothing_gives_nothing():
    box = np.array([[0, 0, 10, 10], [1, 0, 11, 10]], float)
    assert suppress(box, np.array([0.5, 0.5]), 0.4).tolist() == [0]
    assert suppress(np.empty((0, 4)), np.empty(0), 0.4).tolist() == []


def test_of_vast_boxes_that_overlap_a_little_one_stays_and_of_smaller_ones_both():
    # Side by side, a third of each shared: two faces in a crowd, one face that fills the picture.
    boxes = np.array([[0, 0, 90, 100], [45, 0, 135, 100]], float)
    scores = np.array([0.9, 0.8])
    assert suppress(boxes, scores, 0.4).tolist() == [0, 1]
    assert suppress(4 * boxes, scores, 0.4).tolist() == [0]
    assert suppress(np.concatenate([4 * boxes[:1], boxes]), np.array([0.9, 0.8, 0.7]), 0.4).tolist() == [0, 1, 2]
