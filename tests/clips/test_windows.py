"""Which stretch of a track becomes a clip."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.clips.windows import SeenFace, Window, best_window, face_at
from streamgate.faces import Face

FACE = Face(np.zeros(4, np.float32), np.zeros((5, 2), np.float32), 0.9)


def seen(*faces: tuple[float, float | None, bool]) -> list[SeenFace]:
    return [SeenFace(pts, FACE, failed, quality) for pts, quality, failed in faces]


def every(step: float, until: float, quality: float) -> list[SeenFace]:
    return seen(*((index * step, quality, False) for index in range(round(until / step))))


def test_the_stretch_with_the_best_mean_wins_and_the_earlier_of_equals() -> None:
    best = seen((2.0, 90.0, False), (2.5, 90.0, False), (3.0, 90.0, False), (3.5, 1.0, False))
    faces = [*every(0.5, 2.0, 50.0), *best]
    window = best_window(faces, 1.0, 3.5)
    assert window is not None and (window.start, window.end, window.quality) == (2.0, 3.0, 90.0)


def test_no_window_holds_a_failure() -> None:
    faces = seen((0.0, 80.0, False), (0.5, None, True), (1.0, 70.0, False), (1.5, 70.0, False), (2.0, 70.0, False))
    window = best_window(faces, 1.0, 2.0)
    assert window is not None and window.start == 1.0
    assert best_window(faces, 1.5, 2.0) is None


def test_a_window_lies_within_the_track_and_knows_a_score() -> None:
    assert best_window(every(0.5, 2.0, 50.0), 3.0, 1.5) is None
    assert best_window(seen((0.0, None, False), (1.0, None, False)), 0.5, 1.0) is None
    assert best_window([], 1.0, 1.0) is None


def test_given_stretches_are_the_only_ones() -> None:
    faces = [*every(0.5, 2.0, 50.0), *seen((2.0, 90.0, False), (2.5, 90.0, False), (3.0, 90.0, False))]
    window = best_window(faces, 1.0, 3.0, [Window(-1.0, 0.5), Window(0.4, 1.6), Window(1.5, 2.6), Window(2.5, 3.6)])
    assert window is not None and (window.start, window.end) == (1.5, 2.6)
    assert window.quality == pytest.approx((50 + 90 + 90) / 3)


def test_a_face_lies_on_the_line_between_its_neighbours() -> None:
    far = Face(FACE.box + 10, FACE.landmarks + 4, 0.8)
    known = [SeenFace(1.0, FACE, False), SeenFace(2.0, far, False)]
    between = face_at(known, 1.5)
    assert between is not None and between.box.tolist() == [5.0] * 4 and between.landmarks[0].tolist() == [2.0, 2.0]
    assert face_at(known, 2.0) is far
    # A track is seen a little longer than its faces are evaluated.
    assert face_at(known, 0.8) is FACE and face_at(known, 2.2) is far
    assert face_at(known, 0.7) is None and face_at(known, 2.3) is None


def test_a_share_of_failures_may_be_allowed_and_what_is_taken_or_tried_is_left_out() -> None:
    faces = [
        SeenFace(index * 0.1, FACE, index == 12, None if index == 12 else 50.0, checked=True) for index in range(41)
    ]
    assert best_window(faces, 2.0, 4.0, max_bad=0.05) is not None
    strict = best_window(faces, 2.0, 4.0)
    assert strict is not None and strict.start > 1.2
    beside = best_window(faces, 1.0, 4.0, max_bad=0.1, taken=[Window(0.0, 2.0)])
    assert beside is not None and beside.start >= 2.0 - 1e-6
    later = best_window(faces, 2.0, 4.0, max_bad=0.05, tried=[0.0])
    assert later is not None and later.start >= 0.25 - 1e-6
