"""The shipped recognizer is the file its card describes, and keeps its contract."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from models.common.images import DataError
from models.recognizer.network import Output, OwnNetwork
from streamgate.networks import Recognizer
from streamgate.networks.runtime import Session
from streamgate.zoo.store import from_card

FOLDER = Path(__file__).resolve().parents[2] / "models/recognizer"


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    path = FOLDER / "card.json"
    if not path.is_file():
        pytest.skip("models/recognizer has no card.json yet: its recipe has not reached what a gate needs")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def own(card: dict[str, Any]) -> OwnNetwork:
    return OwnNetwork(FOLDER)


@pytest.fixture(scope="module")
def crop(face: np.ndarray) -> np.ndarray:
    """The portrait in ArcFace's alignment: in the FFHQ square it starts at (-17.7, -17.2) and is 147 px wide."""
    grown = cv2.resize(face, (147, 147), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(grown[17:129, 18:130])


def run(own: OwnNetwork, *crops: np.ndarray) -> Output:
    return own.run(np.stack(crops))


def test_the_card_describes_the_files(card: dict[str, Any]) -> None:
    assert hashlib.sha256((FOLDER / card["file"]).read_bytes()).hexdigest() == card["sha256"]
    affine = card["affine"]
    assert hashlib.sha256((FOLDER / affine["file"]).read_bytes()).hexdigest() == affine["sha256"]
    assert card["research_only"] is True and card["training_data"] and card["distilled_from"]
    assert card["calibration"]["alpha"] > 0 and 0 < card["identity"]["threshold"] < 1


def test_the_evaluation_on_the_card_is_of_this_file(card: dict[str, Any]) -> None:
    assert card["sha256"][:16] in (FOLDER / "card.md").read_text()
    assert json.loads((FOLDER / "evaluation.json").read_text())["sha256"] == card["sha256"]


def test_the_package_finds_it_as_a_recognizer(card: dict[str, Any], crop: np.ndarray) -> None:
    weights = from_card(FOLDER, "embedded")
    assert weights is not None and weights.roles == ("recognizer",)
    recognizer = Recognizer(Session(weights, "cpu"))
    output = recognizer.run(crop[None])
    affine = recognizer.last_affine()
    assert affine.weight @ output.features[0] + affine.bias == pytest.approx(output.embedding[0], abs=1e-3)


def test_mirroring_keeps_who_it_is_and_negates_yaw(own: OwnNetwork, crop: np.ndarray) -> None:
    output = run(own, crop, crop[:, ::-1])
    vectors = output.normalised()
    assert vectors[0] @ vectors[1] > own.card["identity"]["threshold"]
    assert output.pose[0, 0] == pytest.approx(-output.pose[1, 0], abs=8)


def test_a_crop_without_a_face_scores_low(own: OwnNetwork, crop: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    output = run(own, crop, noise, np.full((112, 112, 3), 128, np.uint8))
    assert output.serfiq()[0] > max(output.serfiq()[1:])


def test_a_cover_is_seen(own: OwnNetwork, crop: np.ndarray) -> None:
    covered = crop.copy()
    covered[66:] = (200, 215, 230)
    output = run(own, crop, covered)
    assert output.visible[0] > 0.8 > output.visible[1] + 0.1


def test_batch_mates_do_not_matter(own: OwnNetwork, crop: np.ndarray) -> None:
    together, alone = run(own, crop, crop[::-1].copy()), run(own, crop)
    assert np.array_equal(together.spread[:1], alone.spread)


@pytest.mark.parametrize("wrong", [np.zeros((1, 96, 96, 3), np.uint8), np.zeros((1, 112, 112, 3), np.float32)])
def test_a_crop_of_the_wrong_size_or_type_names_both(own: OwnNetwork, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected RGB uint8 \(N, 112, 112, 3\), got"):
        own.run(wrong)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.py --export"):
        OwnNetwork(tmp_path)
