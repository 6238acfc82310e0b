"""The shipped expression network is the file its card describes, and keeps its contract."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from models.common.smoke import ASTRONAUT_LANDMARKS
from models.expression.network import Answers, OwnNetwork
from streamgate.networks.alignment import EXPRESSION_SIZE, expression_matrix
from streamgate.weights.store import from_card

FOLDER = Path(__file__).resolve().parents[2] / "models/expression"


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    path = FOLDER / "card.json"
    if not path.is_file():
        pytest.skip("models/expression has no card.json yet: its recipe has not produced it")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def own(card: dict[str, Any]) -> OwnNetwork:
    return OwnNetwork(FOLDER)


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    """uint8 [144, 128, 3] RGB: the portrait that scikit-image ships, a broad smile with the eyes open."""
    data = pytest.importorskip("skimage.data")
    matrix = expression_matrix(ASTRONAUT_LANDMARKS)
    return cv2.warpAffine(data.astronaut(), matrix, EXPRESSION_SIZE[::-1], flags=cv2.INTER_LINEAR)


@pytest.fixture(scope="module")
def answers(own: OwnNetwork, crop: np.ndarray) -> Answers:
    """Of the portrait and of its mirror image."""
    return own.run(np.stack([crop, np.ascontiguousarray(crop[:, ::-1])]))


def test_the_card_describes_the_file(card: dict[str, Any]) -> None:
    assert hashlib.sha256((FOLDER / card["file"]).read_bytes()).hexdigest() == card["sha256"]
    # Without the heads `visible` and `real`, it had 3.2 MB; test_detector_card.py limits the wheel's weights in total.
    assert (FOLDER / card["file"]).stat().st_size < 9_000_000
    assert card["research_only"] is True and "non-commercial" in card["licence"]
    assert card["training_data"] and card["training_clips"] >= 40 and len(card["clip_sources"]) >= 40
    assert any("MediaPipe" in teacher and "Apache-2.0" in teacher for teacher in card["distilled_from"])
    assert "non-commercial" in (FOLDER / "card.md").read_text()


def test_the_evaluation_on_the_card_is_of_this_file(card: dict[str, Any]) -> None:
    assert card["sha256"][:16] in (FOLDER / "card.md").read_text()
    assert json.loads((FOLDER / "evaluation.json").read_text())["sha256"] == card["sha256"]


def test_the_package_can_read_the_card(card: dict[str, Any]) -> None:
    weights = from_card(FOLDER, "embedded")
    assert weights is not None and weights.sha256 == card["sha256"]


def test_outputs_are_as_the_card_lists_them(card: dict[str, Any], own: OwnNetwork, answers: Answers) -> None:
    outputs = ["pose", "signals", "points", "visible", "real"]
    assert [out.name for out in own.session.get_outputs()] == card["outputs"] == outputs
    assert answers.signals.shape == (2, len(card["output"]["signals"]))
    assert answers.points.shape == (2, len(card["output"]["points"]), 2)
    assert answers.pose.shape == (2, 3) and np.isfinite(answers.signals).all()
    assert answers.visible.shape == (2,) and 0 < answers.visible.min() <= answers.visible.max() <= 1


def test_the_portrait_smiles_with_open_eyes(answers: Answers) -> None:
    assert answers.signal("mouthSmileLeft").min() > 0.3
    assert answers.signal("eyeBlinkLeft").max() < 0.4
    assert answers.signal("lidsLeft").min() > 0.1


def test_mirroring_negates_yaw_and_swaps_sides(card: dict[str, Any], answers: Answers) -> None:
    assert answers.pose[0, 0] == pytest.approx(-answers.pose[1, 0], abs=8)
    left, right = answers.signal("lidsLeft"), answers.signal("lidsRight")
    assert left[0] == pytest.approx(right[1], abs=0.05) and right[0] == pytest.approx(left[1], abs=0.05)


def test_points_lie_on_eyes_and_mouth(card: dict[str, Any], answers: Answers) -> None:
    at = {number: answers.points[0, i] for i, number in enumerate(card["output"]["points"])}
    eye_row = card["crop"]["eye_row"]
    assert abs(at[468][1] - eye_row) < 8 and at[468][0] < 64 < at[473][0]
    assert at[13][1] > eye_row + 35 and at[61][0] < at[13][0] < at[291][0]


def test_what_covers_the_portrait_is_seen(own: OwnNetwork, crop: np.ndarray, answers: Answers) -> None:
    strip, half = crop.copy(), crop.copy()
    strip[95:120] = (30, 60, 160)
    half[:, :60] = (200, 190, 180)
    covered = own.run(np.stack([strip, half])).visible
    assert answers.visible.min() > 0.98 and covered[0] < 0.92 and covered[1] < 0.8


def test_a_batch_does_not_change_a_face(own: OwnNetwork, crop: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, *crop.shape), dtype=np.uint8)
    alone, together = own.run(crop[None]), own.run(np.concatenate([noise, crop[None]]))
    assert np.array_equal(alone.signals[0], together.signals[-1]) and np.array_equal(alone.pose[0], together.pose[-1])
    assert alone.visible[0] == together.visible[-1]
