"""No measure follows skin, and open eyes are not closed: faces that were looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import pytest

from streamgate import Gate
from support.real_weights import shared_part

CLOSED = {"04766", "04838", "04842", "04847", "04908", "04974"}
"""Of the 240 validation faces, those whose eyes are shut, by eye: looking down, laughing with the eyes shut, asleep."""

SMILING = (
    4776,
    4783,
    4784,
    4786,
    4817,
    4818,
    4825,
    4849,
    4862,
    4864,
    4870,
    4884,
    4890,
    4927,
    4930,
    4931,
    4935,
    4941,
    4959,
)
"""Of the same, faces that smile with their teeth, some of them broadly."""


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate(device="cpu", settings=["measures.size.min=1"])


def test_narrow_and_laughing_eyes_are_open_and_shut_ones_are_not(gate: Gate) -> None:
    folder = shared_part("faces/hq_val")
    pictures = sorted(folder.glob("*.jpg"))
    # Every third of the others, not to take a minute.
    chosen = [path for index, path in enumerate(pictures) if path.stem in CLOSED or index % 3 == 0]
    called = set()
    for path in chosen:
        picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        (face,) = gate.score(picture, aligned="ffhq")
        if "eyes_closed" in face.gate.reasons:
            called.add(path.stem)
    assert called >= CLOSED
    assert len(called - CLOSED) <= 0.02 * (len(chosen) - len(CLOSED))


def test_a_natural_smile_is_no_grimace_and_ranks_lower(gate: Gate) -> None:
    folder = shared_part("faces/hq_val")
    for number in SMILING:
        picture = cv2.cvtColor(cv2.imread(str(folder / f"{number:05}.jpg")), cv2.COLOR_BGR2RGB)
        (face,) = gate.score(picture, aligned="ffhq")
        assert not {"grimace", "mouth_open"} & set(face.gate.reasons), number
        assert face.measures["expression"].scalar < 50, number


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dark_skin_04792.mp4", "dark"),
        ("eyes_open_04891.mp4", "eyes_closed"),
        ("eyes_open_glasses_04803.mp4", "eyes_closed"),
    ],
)
def test_faces_that_were_rejected_for_what_they_are(
    gate: Gate, shared_case: Callable[[str], Path], name: str, reason: str
) -> None:
    with av.open(str(shared_case(name))) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    for frame in frames[:: len(frames) // 4]:
        assert reason not in gate.score(frame)[0].gate.reasons


def test_along_a_track_glasses_do_not_close_eyes(shared_case: Callable[[str], Path]) -> None:
    """The detector puts these eyes an eighth of their distance too low: where they are, the track's first face says."""
    clip = shared_case("eyes_open_glasses_04803.mp4")
    with Gate("studio", device="cpu") as opened:
        (track,) = list(opened.tracks(clip))
    assert "eyes_closed" not in track.rejected
