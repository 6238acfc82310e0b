"""Who is who from frame to frame."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.faces import Face
from streamgate.tracking.motion import BoxMotion
from streamgate.tracking.tracker import Tracker

CONFIG = load_config()


def face(x: float, y: float = 100.0, size: float = 80.0, score: float = 0.95) -> Face:
    box = np.array([x, y, x + size, y + size], np.float32)
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    return Face(box, points * size + [x, y], score)


def follow(rounds: list[tuple[float, list[Face]]]) -> list[dict[int, float]]:
    """Per round: track id -> left edge of the box it was given."""
    tracker = Tracker(CONFIG)
    seen = []
    for pts, faces in rounds:
        tracker.update(pts, faces)
        seen.append({track.track_id: float(track.face.box[0]) for track in tracker.tracks if not track.missed})
    return seen


def test_a_moving_face_stays_one_track() -> None:
    seen = follow([(i * 0.2, [face(100 + 30 * i)]) for i in range(12)])
    assert all(list(one) == [1] for one in seen)


def test_a_fast_face_is_held_as_soon_as_its_speed_is_known() -> None:
    seen = follow([(i * 0.1, [face(100 + 70 * i)]) for i in range(12)])
    assert all(list(one) == [1] for one in seen)


def test_two_faces_that_cross_keep_their_identities() -> None:
    rounds = [(i * 0.1, [face(100 + 20 * i, 100), face(500 - 20 * i, 130)]) for i in range(21)]
    seen = follow(rounds)
    assert seen[-1] == {1: pytest.approx(500), 2: pytest.approx(100)}


def test_a_gap_is_bridged_and_a_longer_one_ends_the_track() -> None:
    before = [(i * 0.2, [face(100)]) for i in range(5)]
    hidden = [(1.0, []), (1.2, []), (1.4, [])]
    assert follow([*before, *hidden, (1.6, [face(102)])])[-1] == {1: pytest.approx(102)}
    assert list(follow([*before, *hidden, (2.5, [face(102)])])[-1]) == [2]


def test_frames_rarer_than_the_longest_gap_still_make_a_track() -> None:
    seen = follow([(i * 1.25, [face(100 + 3 * i)]) for i in range(5)])
    assert all(list(one) == [1] for one in seen)


def test_a_weak_detection_continues_a_track_and_starts_none() -> None:
    seen = follow([(0.0, [face(100)]), (0.2, [face(104, score=0.3)]), (0.4, [face(700, score=0.5)])])
    assert list(seen[1]) == [1]
    assert seen[2] == {}


def test_a_face_of_another_size_is_another_face() -> None:
    seen = follow([(0.0, [face(100, size=60)]), (0.2, [face(100, size=60)]), (0.4, [face(80, 80, size=140)])])
    assert list(seen[2]) == [2]


def test_lost_tracks_are_reported_once_and_flush_ends_the_rest() -> None:
    tracker = Tracker(CONFIG)
    tracker.update(0.0, [face(100), face(400)])
    tracker.update(0.2, [face(100), face(400)])
    lost = [tracker.update(0.2 + i * 0.3, [face(100)]) for i in range(1, 8)]
    assert [track.track_id for round_lost in lost for track in round_lost] == [2]
    assert [track.track_id for track in tracker.flush()] == [1]
    assert list(tracker.tracks) == []


def test_one_sighting_is_not_a_person_yet() -> None:
    tracker = Tracker(CONFIG)
    tracker.update(0.0, [face(100)])
    (born,) = tracker.tracks
    assert not born.confident
    tracker.update(0.2, [face(100)])
    assert born.confident


def test_motion_goes_by_time_not_by_frames() -> None:
    steady, sparse = BoxMotion(face(0).box, 0.0), BoxMotion(face(0).box, 0.0)
    for i in range(1, 41):
        steady.update(face(5.0 * i).box, i * 0.05)
    for i in range(1, 9):
        sparse.update(face(25.0 * i).box, i * 0.25)
    assert steady.predict(2.1)[0] == pytest.approx(210, abs=6)
    assert sparse.predict(2.1)[0] == pytest.approx(210, abs=6)
