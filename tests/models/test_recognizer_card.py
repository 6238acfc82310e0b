"""The shipped recognizer is the file its card describes, and keeps its contract."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support.real_weights import shared_part, standard_models

pytest.importorskip("onnxruntime")

from models.common.images import DataError
from models.recognizer import footage
from models.recognizer.network import Output, OwnNetwork
from streamgate import Gate
from streamgate.networks import Recognizer
from streamgate.networks.sessions import Session
from streamgate.weights.store import from_card, resolve

MEDIANS = ("clean_median", "worst_median")
FOLDER = Path(__file__).resolve().parents[2] / "models/recognizer"


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    path = FOLDER / "card.json"
    if not path.is_file():
        pytest.skip("models/recognizer has no card.json yet: its recipe has not produced it")
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
    assert set(card["measures"]) == {"occlusion", "eyes"}


def test_the_evaluation_on_the_card_is_of_this_file(card: dict[str, Any]) -> None:
    assert card["sha256"][:16] in (FOLDER / "card.md").read_text()
    assert json.loads((FOLDER / "evaluation.json").read_text())["sha256"] == card["sha256"]


def test_the_package_finds_it_as_a_recognizer(card: dict[str, Any], crop: np.ndarray) -> None:
    weights = from_card(FOLDER, "embedded")
    assert weights is not None and weights.roles == ("recognizer", "pose")
    assert set(weights.measures) == {"occlusion", "eyes"}
    recognizer = Recognizer(Session(weights, "cpu"))
    output = recognizer.run(crop[None])
    weight, bias = recognizer.last_affine()
    assert weight @ output.features[0] + bias == pytest.approx(output.embedding[0], abs=1e-3)


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


def test_calibrations_put_clean_at_90_and_the_worst_at_10(card: dict[str, Any]) -> None:
    for figures in card["measures"].values():
        scalars = [100 / (1 + math.exp(-(figures[k] - figures["x0"]) / figures["w"])) for k in MEDIANS]
        assert scalars == pytest.approx([90, 10], abs=1)


def test_the_eyes_of_the_portrait_are_open(own: OwnNetwork, crop: np.ndarray) -> None:
    output = run(own, crop, crop[:, ::-1])
    assert output.eyes is not None and output.eyes.min() > 0.8


def test_the_embedded_tier_serves_recognizer_and_pose(card: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGATE_MODELS", str(standard_models()))
    found = resolve("embedded")
    assert found["recognizer"].name == found["pose"].name == card["name"]
    assert resolve("standard")["recognizer"].tier == "standard"


@pytest.fixture(scope="module")
def gate(card: dict[str, Any]) -> Iterator[Gate]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMGATE_MODELS", str(standard_models()))
        with Gate(models="embedded", device="cpu") as opened:
            yield opened


def test_the_gate_sees_a_blink(gate: Gate) -> None:
    clip = shared_part("videos/fsgan_conan.mp4")
    verdicts = {}
    for frame in footage.frames(clip):
        for name, pts in (("closed", 2.4692), ("open", 1.0)):
            if abs(frame.pts_seconds - pts) < 0.016 and (scored := footage.largest(gate, frame.thumbnail(640))):
                verdicts[name] = scored.gate.reasons
    assert "eyes_closed" in verdicts["closed"] and "eyes_closed" not in verdicts["open"]


@pytest.mark.parametrize("degrees", [-20.0, 20.0])
def test_roll_is_that_of_the_source_picture(gate: Gate, face: np.ndarray, degrees: float) -> None:
    """Positive is clockwise on the screen; OpenCV turns the other way."""
    turn = cv2.getRotationMatrix2D((127.5, 127.5), -degrees, 0.8)
    turned = cv2.warpAffine(face, turn, (256, 256), borderMode=cv2.BORDER_REFLECT)
    straight, tilted = (gate.score(picture)[0] for picture in (face, turned))
    assert straight.pose is not None and tilted.pose is not None
    assert tilted.pose.roll - straight.pose.roll == pytest.approx(degrees, abs=5)


def test_marks_of_blinks_tell_three_kinds() -> None:
    marks = {"closed": [[1.0, 2.0]], "between": [[2.5, 2.5]]}
    kinds = [footage.kind_of(pts, marks) for pts in (0.99, 1.0, 2.0, 2.1, 2.5004)]
    assert kinds == ["open", "closed", "closed", "open", "between"]


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
