"""Hands drawn from a mesh, and textures cut from pictures, which cover faces in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")

from models.common.images import DataError, write_rgb
from models.expression.cutouts import SIDE, THINGS_SIDE
from models.open import hands
from models.open.heads import Mesh


def tube(start: np.ndarray, end: np.ndarray, radius: float, first: int) -> tuple[np.ndarray, list[list[int]]]:
    """Points and quads of a tube of eight rings; first: index of its first point in the mesh."""
    way = (end - start) / np.linalg.norm(end - start)
    side = np.cross(way, [0.0, 0.0, 1.0])
    up = np.cross(side, way)
    rings = [
        start + (end - start) * share + radius * (np.cos(angle) * side + np.sin(angle) * up)
        for share in np.linspace(0, 1, 8)
        for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ]
    quads = [
        [first + 12 * row + c, first + 12 * row + (c + 1) % 12, first + 12 * (row + 1) + (c + 1) % 12,
         first + 12 * (row + 1) + c]
        for row in range(7)
        for c in range(12)
    ]  # fmt: skip
    return np.array(rings), quads


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    """A forearm, a palm and five straight fingers along x, with joints named as in MakeHuman."""
    joints = {"joint-r-elbow": np.array([0.0, 0, 0]), "joint-r-hand": np.array([3.0, 0, 0])}
    for f in range(5):
        for k in range(4):
            joints[f"joint-r-finger-{f + 1}-{k + 1}"] = np.array([3.8 + 0.4 * k, 0.3 * (2 - f), 0])
    points, body = np.zeros((0, 3)), []
    pieces = [(joints["joint-r-elbow"], np.array([3.8, 0, 0]), 0.5)]
    pieces += [(joints[f"joint-r-finger-{f}-1"], joints[f"joint-r-finger-{f}-4"], 0.12) for f in range(1, 6)]
    for piece in pieces:
        made, quads = tube(*piece, len(points))
        points, body = np.concatenate([points, made]), [*body, *quads]
    parts = {"body": body}
    for name, place in joints.items():
        parts[name] = [[len(points)]]
        points = np.concatenate([points, place[None]])
    return Mesh(points, parts, {})


def test_a_hand_fills_part_of_its_picture_and_its_arm_leaves_it_at_the_bottom(mesh: Mesh) -> None:
    drawn = [hands.draw_hand(np.random.default_rng(number), mesh) for number in range(6)]
    for hand in drawn:
        assert hand.shape == (SIDE, SIDE, 4) and hand.dtype == np.uint8
        assert 0.03 < (hand[..., 3] > 128).mean() < 0.6
        assert (hand[-1, :, 3] > 128).any() and not (hand[:4, :, 3] > 128).any()
    assert len({hand.tobytes() for hand in drawn}) == 6
    again = hands.draw_hand(np.random.default_rng(0), mesh)
    assert (again == drawn[0]).all()


def test_textures_are_squares_of_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hands, "THINGS", 5)
    write_rgb(tmp_path / "red.png", np.full((200, 300, 3), (200, 10, 10), np.uint8))
    write_rgb(tmp_path / "small.png", np.zeros((20, 20, 3), np.uint8))
    found = hands.textures([tmp_path], np.random.default_rng(0))
    assert found.shape == (5, THINGS_SIDE, THINGS_SIDE, 3) and (found == (200, 10, 10)).all()


def test_the_error_names_a_folder_without_a_large_picture(tmp_path: Path) -> None:
    write_rgb(tmp_path / "small.png", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(DataError, match=str(tmp_path)):
        hands.textures([tmp_path], np.random.default_rng(0))
