"""Which stretches of scored frames are clips."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.clips.frame_scoring import ScoredFrame
from streamgate.clips.recipe import load_recipe, recipe_names
from streamgate.clips.rules import bad_frames, clip_statistics, fault
from streamgate.faces import Face, Pose

RULES = load_recipe("talking").clip


def frames(
    count: int = 125, *, fps: float = 25.0, yaw: float = 0.0, way: float = 0.0, faces: int = 1
) -> list[ScoredFrame]:
    """A head that turns by `yaw` degrees and goes `way` pixels a second."""
    found = []
    for index in range(count):
        time = index / fps
        box = np.array([100, 100, 200, 220], np.float32) + way * time
        face = Face(box, np.linspace(0, 40, 10, dtype=np.float32).reshape(5, 2) + way * time, 0.9)
        found.append(ScoredFrame(time, face, (), 50.0, Pose(yaw * time, 0.0, 0.0), {}, faces))
    return found


def failing(found: list[ScoredFrame], first: int, behind: int, reason: str) -> list[ScoredFrame]:
    return [
        ScoredFrame(
            one.pts_seconds, one.face, (reason,) if first <= index < behind else one.reasons, one.quality, one.pose
        )
        for index, one in enumerate(found)
    ]


def why(found: list[ScoredFrame], **changes: float) -> str | None:
    rules = RULES.model_copy(update=changes)
    return fault(found, bad_frames(found, rules), clip_statistics(found), rules)


def test_short_blinks_are_no_fault_and_long_ones_are() -> None:
    assert why(failing(frames(), 40, 52, "eyes_closed")) is None
    assert why(failing(frames(), 40, 60, "eyes_closed")) == "eyes_closed"
    assert why(failing(frames(), 40, 52, "eyes_closed"), blink_s=0.0) == "eyes_closed"


def test_a_few_bad_frames_pass_and_many_or_long_ones_do_not() -> None:
    assert why(failing(frames(), 40, 45, "blurred")) is None
    assert why(failing(frames(), 40, 48, "blurred")) == "blurred", "a third of a second at once"
    scattered = frames()
    for index in range(0, 125, 12):
        scattered = failing(scattered, index, index + 1, "blurred") if index == 0 else [
            *scattered[:index], failing(scattered, index, index + 1, "blurred")[index], *scattered[index + 1 :],
        ]  # fmt: skip
    assert why(scattered) == "blurred", "more than one in twenty"


def test_other_faces_small_faces_and_wild_heads_are_no_clips() -> None:
    assert why(frames(faces=2)) == "other faces in the picture"
    assert why(frames(), min_face_px=150.0) == "small"
    assert why(frames(way=200.0), min_movement=80.0) == "movement"
    assert why(frames(yaw=8.0), min_rotation=80.0) is None
    assert why(frames(yaw=60.0), min_rotation=80.0) == "rotation"
    assert why(frames(yaw=0.1), min_rotation_range=2.0) == "too little rotation"
    assert why(frames(yaw=9.0), max_rotation_range=20.0) == "too much rotation"


def test_jitter_is_of_what_shakes_and_not_of_what_moves() -> None:
    smooth = clip_statistics(frames(way=60.0))
    rng = np.random.default_rng(3)
    shaky = []
    for one in frames(way=60.0):
        assert one.face is not None
        off = rng.normal(0, 1.5, (1, 2)).astype(np.float32)
        face = Face(one.face.box, one.face.landmarks + off, 0.9)
        shaky.append(ScoredFrame(one.pts_seconds, face, (), 50.0, one.pose))
    assert smooth.head_jitter < 0.1 and clip_statistics(shaky).head_jitter > 5
    assert 55 < clip_statistics(frames(251, way=10.0, yaw=6.0)).yaw_range < 60


@pytest.mark.parametrize("name", recipe_names())
def test_every_preset_is_whole(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.clip.min_seconds <= recipe.clip.max_seconds
    assert recipe.clip.max_bad <= 0.05
