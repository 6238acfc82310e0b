"""Landmarks that the detector misplaces are corrected by what was found in the same track."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.faces import Face
from streamgate.frames import Array
from streamgate.selection.offsets import FADE_S, FEWEST, REMEMBERED, LandmarkOffsets

LANDMARKS = np.array([[100, 100], [140, 100], [120, 125], [104, 145], [136, 145]], np.float32)
BOX = np.array([80, 60, 160, 170], np.float32)
GLASSES = np.array([[0, 5], [0, 5], [0, 2], [0, 0], [0, 0]], np.float32)
"""What glasses of an eighth of the distance between the eyes do, pixels."""


def face(landmarks: Array = LANDMARKS) -> Face:
    return Face(BOX, landmarks.astype(np.float32), 0.9)


def test_without_a_face_before_nothing_is_corrected() -> None:
    offsets = LandmarkOffsets()
    assert not offsets
    assert offsets.corrected(1.0, face()).landmarks == pytest.approx(LANDMARKS)


def test_a_person_keeps_its_offset_and_it_grows_and_turns_with_the_face() -> None:
    offsets = LandmarkOffsets()
    for index in range(FEWEST):
        offsets.add(0.1 * index, face(), LANDMARKS + GLASSES)
    # A minute later the face is twice as large and lies on its side: down is to the left.
    turn = 2 * np.array([[0, 1], [-1, 0]], np.float32)
    later = offsets.corrected(60.0, face(LANDMARKS @ turn))
    assert later.landmarks == pytest.approx((LANDMARKS + GLASSES) @ turn, abs=1e-3)
    assert np.array_equal(later.box, BOX)


def test_an_error_of_the_moment_is_carried_to_the_next_faces_and_no_further() -> None:
    offsets = LandmarkOffsets()
    for index in range(9):
        offsets.add(0.5 * index, face(), LANDMARKS)
    offsets.add(5.0, face(), LANDMARKS + 4.0)
    beside, near, far = (offsets.corrected(pts, face()).landmarks - LANDMARKS for pts in (5.0, 5.0 + FADE_S, 20.0))
    assert beside == pytest.approx(np.full((5, 2), 4.0), abs=1e-4)
    assert near == pytest.approx(np.full((5, 2), 4.0 / np.e), abs=1e-4)
    assert far == pytest.approx(np.zeros((5, 2)), abs=1e-4)


def test_a_second_look_at_a_face_replaces_the_first_and_old_faces_are_forgotten() -> None:
    offsets = LandmarkOffsets()
    offsets.add(0.0, face(), LANDMARKS + 9.0)
    offsets.add(0.0, face(), LANDMARKS + GLASSES)
    assert offsets.corrected(0.0, face()).landmarks == pytest.approx(LANDMARKS + GLASSES, abs=1e-4)
    for index in range(REMEMBERED):
        offsets.add(1.0 + index, face(), LANDMARKS)
    assert offsets.corrected(0.0, face()).landmarks == pytest.approx(LANDMARKS, abs=1e-4)


def test_a_face_without_distance_between_the_eyes_teaches_nothing_and_stays() -> None:
    offsets, flat = LandmarkOffsets(), face(np.full((5, 2), 7.0))
    offsets.add(0.0, flat, LANDMARKS)
    assert not offsets
    offsets.add(0.0, face(), LANDMARKS + GLASSES)
    assert offsets.corrected(0.0, flat).landmarks == pytest.approx(flat.landmarks)
