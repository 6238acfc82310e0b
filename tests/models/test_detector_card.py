"""The shipped detector is the file its card describes, and keeps its contract."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")
data = pytest.importorskip("skimage.data", reason="needs the portrait that scikit-image ships")

from models.common.smoke import ASTRONAUT_LANDMARKS  # noqa: E402
from streamgate.networks.detector import Detector  # noqa: E402
from streamgate.networks.sessions import Session  # noqa: E402
from streamgate.weights.store import from_card, scan  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "models/detector"
MOST_SHIPPED = 15_000_000


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return json.loads((FOLDER / "card.json").read_text())


@pytest.fixture(scope="module")
def detector() -> Detector:
    weights = from_card(FOLDER, "embedded")
    assert weights is not None
    return Detector(Session(weights, "cpu"))


def test_the_card_describes_the_file(card: dict[str, Any]) -> None:
    assert hashlib.sha256((FOLDER / card["file"]).read_bytes()).hexdigest() == card["sha256"]
    assert card["research_only"] is True and card["training_data"] and card["distilled_from"]


def test_the_evaluation_on_the_card_is_of_this_file(card: dict[str, Any]) -> None:
    assert card["sha256"][:16] in (FOLDER / "card.md").read_text()
    assert json.loads((FOLDER / "evaluation.json").read_text())["sha256"] == card["sha256"]


def test_the_portrait_and_its_landmarks_are_found_and_so_is_its_mirror_image(detector: Detector) -> None:
    portrait = data.astronaut()
    for picture, points in (
        (portrait, ASTRONAUT_LANDMARKS),
        (np.ascontiguousarray(portrait[:, ::-1]), (ASTRONAUT_LANDMARKS * (-1, 1) + (511, 0))[[1, 0, 2, 4, 3]]),
    ):
        faces = detector.detect([picture], 0.9)[0]
        assert len(faces) == 1
        assert np.linalg.norm(faces[0].landmarks - points, axis=1).max() < 6


@pytest.mark.parametrize(("side", "long_side"), [(18, 1280), (40, 1280), (300, 1280), (600, 640)])
def test_faces_from_18_px_to_most_of_the_picture(detector: Detector, side: int, long_side: int) -> None:
    portrait = data.astronaut()[30:220, 130:320]  # a face of about 95 px
    size = round(190 * side / 95)
    picture = np.full((720, 1280, 3), 90, np.uint8)
    scaled = cv2.resize(portrait, (size, size), interpolation=cv2.INTER_AREA if side < 95 else cv2.INTER_CUBIC)
    top, left = max(0, (size - 720) // 2), max(0, (size - 1280) // 2)
    part = scaled[top : top + 720, left : left + 1280]
    picture[: part.shape[0], 300 : 300 + part.shape[1]] = part[:, : 1280 - 300]
    seen = cv2.resize(picture, (long_side, long_side * 9 // 16), interpolation=cv2.INTER_AREA)
    assert len(detector.detect([seen], 0.5)[0]) == 1


def test_a_picture_is_judged_alike_alone_and_in_company(detector: Detector) -> None:
    portrait = data.astronaut()
    alone = detector.detect([portrait])[0]
    together = detector.detect([np.zeros_like(portrait), portrait])[1]
    assert [face.score for face in alone] == [face.score for face in together]


def test_nothing_is_found_where_there_is_nothing(detector: Detector) -> None:
    rng = np.random.default_rng(0)
    pictures = [np.zeros((360, 640, 3), np.uint8), rng.integers(0, 256, (360, 640, 3), dtype=np.uint8)]
    assert detector.detect(pictures) == [[], []]


def test_what_is_shipped_is_in_the_wheel_and_within_its_size() -> None:
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = included["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    shipped = scan("embedded")
    assert {"detector", "ifqa"} <= {role for weights in shipped for role in weights.roles}
    total = 0
    for weights in shipped:
        files = [weights.path, weights.path.parent / "card.json", *([weights.affine] if weights.affine else [])]
        for file in files:
            place = str(file.relative_to(ROOT))
            assert included[place] == f"streamgate/{place}"
        total += sum(file.stat().st_size for file in files)
    assert total <= MOST_SHIPPED
