"""The rule that judges tracks by embeddings, on made-up people."""

from __future__ import annotations

import numpy as np
from identities import Scale, Sighting, evaluator, measure_scale
from sightings import Detected, Moment

from streamgate.frames import Face

SCALE = Scale(0.5, 0.4, 1, 1, (0.6, 0.7, 0.9), (0.1, 0.3, 0.4))
PEOPLE = np.eye(4, 16, dtype=np.float32)


def _shown(track_id: int, person: int, start: float, count: int, shot: int = 0) -> list[Sighting]:
    box = np.array([0, 0, 40, 50], np.float32)
    return [Sighting(track_id, shot, start + 0.04 * i, box, PEOPLE[person], True) for i in range(count)]


def test_a_track_that_changes_its_person_is_a_switch() -> None:
    verdict = evaluator([*_shown(1, 0, 0.0, 25), *_shown(1, 1, 1.0, 25)], SCALE, 2)
    assert [track_id for track_id, _ in verdict.switches] == [1]
    assert abs(verdict.switches[0][1] - 1.0) < 0.3
    assert (verdict.tracks, verdict.people, verdict.fragments) == (1, 2, 0)


def test_one_odd_window_is_no_switch() -> None:
    found = [*_shown(1, 0, 0.0, 25), *_shown(1, 1, 1.0, 7), *_shown(1, 0, 1.28, 25)]
    assert evaluator(found, SCALE, 2).switches == ()


def test_a_person_in_two_tracks_one_after_the_other_is_a_fragment() -> None:
    found = [*_shown(1, 0, 0.0, 25), *_shown(2, 0, 2.0, 25), *_shown(3, 1, 0.0, 25)]
    verdict = evaluator(found, SCALE, 2)
    assert (verdict.switches, verdict.stretches, verdict.people, verdict.fragments) == ((), 3, 2, 1)


def test_tracks_at_one_time_or_in_two_shots_are_not_merged() -> None:
    at_once = [*_shown(1, 0, 0.0, 25), *_shown(2, 0, 0.2, 25)]
    assert evaluator(at_once, SCALE, 2).fragments == 0
    two_shots = [*_shown(1, 0, 0.0, 25), *_shown(2, 0, 2.0, 25, shot=1)]
    assert evaluator(two_shots, SCALE, 2).fragments == 0


def test_limits_come_from_the_footage() -> None:
    def moment(index: int) -> Moment:
        faces = []
        for person in (0, 1):
            left = 100.0 * person
            landmarks = np.array([[12 + left, 20], [28 + left, 20], [20 + left, 28], [13 + left, 38], [27 + left, 38]])
            face = Face(np.array([left, 0, left + 40, 50], np.float32), landmarks, 0.9)
            mixed = PEOPLE[person] + 0.5 * PEOPLE[2]
            faces.append(Detected(face, mixed / np.linalg.norm(mixed), 90.0))
        return Moment(index * 0.04, 0, False, tuple(faces))

    scale = measure_scale([moment(index) for index in range(50)])
    assert scale.pairs_different == 50 and scale.pairs_same > 4
    assert abs(scale.different_quantiles[0] - 0.2) < 1e-5 and abs(scale.same_quantiles[0] - 1.0) < 1e-5
    assert 0.15 <= scale.differs <= scale.same < 1.0
