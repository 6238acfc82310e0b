"""Whether a track still shows the same person."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from streamgate.faces import Face
from streamgate.frames import Array, Frame, Picture
from streamgate.scoring.lockstep import run_in_lockstep
from streamgate.selection.continuity import Continuity
from streamgate.selection.observations import Observation
from streamgate.sources import picture_of_rgb
from streamgate.tracks import Candidate

FACE = Face(
    np.array([20, 20, 180, 180], np.float32),
    np.array([[65, 80], [135, 80], [100, 115], [75, 145], [125, 145]], np.float32),
    0.99,
)
PEOPLE = np.eye(4, dtype=np.float32)


class Recognizer:
    """Recognises faces by time; None where the landmarks coincide."""

    def __init__(self, person: Callable[[float], int | None]) -> None:
        self._person = person
        self.recognised: list[float] = []
        self.pts: dict[int, float] = {}

    def embedding(self, face: Face, picture: Picture):  # type: ignore[no-untyped-def]
        pts = self.pts[id(picture)]
        self.recognised.append(pts)
        yield []
        person = self._person(pts)
        return None if person is None else PEOPLE[person]


def looks(number: int) -> Array:
    return np.random.default_rng(number).integers(0, 256, (10, 10, 3), np.uint8).repeat(20, 0).repeat(20, 1)


def follow(recognizer: Recognizer, look: Callable[[float], int], seconds: float) -> float | None:
    """Five faces a second, whose pixels change with `look`; returns the time of the last face of the first person."""
    continuity = Continuity(recognizer, 0.4)  # type: ignore[arg-type]
    track: list[Observation] = []
    result: list[float | None] = []
    for pts in np.arange(0, seconds, 0.2).round(1).tolist():
        picture = picture_of_rgb(looks(look(pts)))
        recognizer.pts[id(picture)] = pts
        track.append(Observation(Frame(picture, pts), Candidate(FACE, track_id=1, pts_seconds=pts)))

        def step():  # type: ignore[no-untyped-def]
            result.append((yield from continuity.follow(track[-1:], track)))

        run_in_lockstep([step()], lambda asks: [])
        if result[-1] is not None:
            return result[-1]
    return None


def test_while_the_person_stays_each_change_of_looks_has_one_more_face_recognised() -> None:
    recognizer = Recognizer(lambda pts: 0)
    assert follow(recognizer, lambda pts: int(pts / 2), 9.0) is None
    # At the first change, the oldest face held is recognised too.
    assert recognizer.recognised == [2.0, 0.8, 4.0, 6.0, 8.0]


def test_another_person_is_found_however_often_the_first_was_recognised() -> None:
    recognizer = Recognizer(lambda pts: 0 if pts < 8 else 1)
    assert follow(recognizer, lambda pts: int(pts / 2), 11.0) == pytest.approx(7.8)


def test_a_face_that_was_compared_with_nothing_does_not_become_the_person_of_the_track() -> None:
    # No face before 2.0 s has an embedding; at 2.0 s, another person is recognised once, and takes over at 6.0 s.
    recognizer = Recognizer(lambda pts: None if pts < 2 else 0 if 2 < pts < 6 else 1)
    assert follow(recognizer, lambda pts: 0 if pts < 2 else 1 if pts < 6 else 2, 8.0) == pytest.approx(5.8)
