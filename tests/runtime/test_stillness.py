"""A face that never moves while another does is a picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamgate.frames import Face, Frame
from streamgate.runtime.stillness import StillnessDetector
from streamgate.sources import picture_of_rgb
from support.media import astronaut

# The astronaut's face in the 512 x 512 picture, by eye.
LANDMARKS = np.array([[205, 106], [243, 106], [226, 131], [210, 145], [242, 145]], np.float32)
BOX = np.array([185, 70, 265, 170], np.float32)
PORTRAIT, PERSON = 1, 2
PLACES = {PORTRAIT: (40.0, 60.0), PERSON: (700.0, 150.0)}
STEP_S = 0.2
WALL = cv2.resize(np.random.default_rng(1).integers(60, 200, (60, 100), np.uint8), (1200, 720))


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def talking(picture: np.ndarray, moment: int) -> np.ndarray:
    """The picture with a face that changes: bent otherwise at each moment."""
    y, x = np.mgrid[:512, :512].astype(np.float32)
    phase = 1.3 * moment
    bent = cv2.remap(
        picture, x + 4 * np.sin(y / 14 + phase), y + 4 * np.cos(x / 11 + phase), cv2.INTER_LINEAR
    )
    return np.asarray(bent)


def watched(
    seconds: float, *, camera: float = 0.0, sway: float = 0.0, company: bool = True, noise: float = 2.0
) -> StillnessDetector:
    """A portrait on a wall, and beside it somebody who talks, seen for a while.

    camera: pixels by which a hand shakes it; sway: pixels by which what is in the portrait moves before the wall.
    """
    random = np.random.default_rng(3)
    source = cv2.cvtColor(astronaut(), cv2.COLOR_RGB2GRAY)
    faces = StillnessDetector()
    for moment in range(round(seconds / STEP_S) + 1):
        angle = np.radians(0.05 * camera * np.sin(moment))
        shake = np.array(
            [[np.cos(angle), -np.sin(angle), camera * np.sin(1.7 * moment)],
             [np.sin(angle), np.cos(angle), camera * np.cos(0.9 * moment)]]
        )  # fmt: skip
        scene = WALL.copy()
        found: dict[int, np.ndarray] = {}
        for track_id, (left, top) in PLACES.items():
            picture = talking(source, moment) if track_id == PERSON and company else source
            x, y = int(left), int(top)
            if track_id == PORTRAIT and sway:
                # The head alone moves, cut out of what is behind it.
                shift = np.array([[1.0, 0.0, sway * np.sin(0.8 * moment)], [0.0, 1.0, sway * np.cos(0.5 * moment)]])
                drawn = cv2.warpAffine(source, shift, (512, 512))
                window = (slice(60, 185), slice(175, 275))
                scene[y + 60 : y + 185, x + 175 : x + 275] = drawn[window]
                found[track_id] = moved(LANDMARKS, shift) + np.float32((left, top))
            else:
                scene[y : y + 512, x : x + 512] = picture[:, : scene.shape[1] - x]
                found[track_id] = LANDMARKS + np.float32((left, top))
        shown = cv2.warpAffine(scene, shake, (1200, 720), borderMode=cv2.BORDER_REPLICATE).astype(np.float64)
        shown = np.clip(shown + random.normal(0, noise, shown.shape), 0, 255).astype(np.uint8)
        frame = Frame(picture_of_rgb(np.repeat(shown[..., None], 3, axis=2)), moment * STEP_S)
        seen = {}
        for track_id, landmarks in found.items():
            here = moved(landmarks, shake)
            # A detector sees moved faces a little differently each time.
            here += random.normal(0, 0.3 if camera else 0.02, here.shape).astype(np.float32)
            shift = here.mean(axis=0) - LANDMARKS.mean(axis=0)
            seen[track_id] = frame, Face(BOX + np.concatenate([shift, shift]), here, 0.99)
        faces.note(frame.pts_seconds, seen)
    return faces


@pytest.mark.parametrize("camera", [0.0, 6.0])
def test_a_portrait_beside_somebody_who_talks_is_still_however_the_camera_moves(camera: float) -> None:
    faces = watched(4.0, camera=camera)
    assert faces.is_still(PORTRAIT) and not faces.is_still(PERSON)


@pytest.mark.parametrize("sway", [1.5, 4.0])
def test_somebody_who_sits_very_still_is_not(sway: float) -> None:
    assert not watched(4.0, sway=sway).is_still(PORTRAIT)


def test_it_takes_three_seconds_and_another_face_that_moves() -> None:
    assert not watched(2.0).is_still(PORTRAIT)
    frozen = watched(4.0, company=False)
    assert not frozen.is_still(PORTRAIT) and not frozen.is_still(PERSON)


def test_what_has_ended_is_forgotten() -> None:
    faces = watched(4.0)
    faces.forget([PORTRAIT])
    assert not faces.is_still(PORTRAIT)
