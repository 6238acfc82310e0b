"""The shipped IFQA is the file its card describes, keeps its contract, and sees what it is for."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime")

from models.ifqa import protocol  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "models/ifqa"


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    path = FOLDER / "card.json"
    if not path.is_file():
        pytest.skip("models/ifqa has no card.json yet: run its recipe")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def session(card: dict[str, Any]) -> Any:
    return onnxruntime.InferenceSession(FOLDER / card["file"], providers=["CPUExecutionProvider"])


def score(session: Any, *pictures: np.ndarray) -> list[float]:
    faces = (np.stack(pictures).astype(np.float32) / 255 - 0.5) / 0.5
    return session.run(["score"], {"face": np.ascontiguousarray(faces.transpose(0, 3, 1, 2))})[0].tolist()


def test_the_card_describes_the_file(card: dict[str, Any]) -> None:
    assert hashlib.sha256((FOLDER / card["file"]).read_bytes()).hexdigest() == card["sha256"]
    assert card["role"] == "ifqa" and card["research_only"] is True and card["training_data"]
    assert card["gmac"] <= 1.7


def test_the_evaluation_on_the_card_is_of_this_file(card: dict[str, Any]) -> None:
    assert card["sha256"][:16] in (FOLDER / "card.md").read_text()
    assert json.loads((FOLDER / "evaluation.json").read_text())["sha256"] == card["sha256"]


def test_calibration_puts_clean_at_90_and_the_worst_at_10(card: dict[str, Any]) -> None:
    figures = card["calibration"]

    def scalar(raw: float) -> float:
        return 100 / (1 + math.exp(-(raw - figures["x0"]) / figures["w"]))

    assert scalar(figures["clean_median"]) == pytest.approx(90, abs=0.5)
    assert scalar(figures["medians"][figures["worst"]]) == pytest.approx(10, abs=0.5)


def test_batch_mates_do_not_matter(session: Any, face: np.ndarray) -> None:
    together = score(session, face, protocol.blur(face, 3))
    assert together[0] == pytest.approx(score(session, face)[0], abs=1e-5)


@pytest.mark.parametrize("kind", protocol.KINDS)
def test_the_score_falls_with_severity(session: Any, face: np.ndarray, kind: str) -> None:
    scores = score(session, face, *(protocol.grade(kind, face, level, 0) for level in (0, 2, 4)))
    # Of two destroyed faces (scores within 0.02 of nothing) neither has to be the worse one.
    assert all(better > worse or max(better, worse) < 0.02 for better, worse in itertools.pairwise(scores))


def test_the_map_is_lower_where_the_face_is_bad(session: Any, face: np.ndarray) -> None:
    from models.common.regions import region_mask

    mouth = region_mask("mouth", 256) > 0.5
    faces = (np.stack([face, protocol.local("blur", "mouth", face, 0)]).astype(np.float32) / 255 - 0.5) / 0.5
    clean, local = session.run(["map"], {"face": np.ascontiguousarray(faces.transpose(0, 3, 1, 2))})[0]
    fall = clean - local
    assert fall[mouth].mean() > 3 * abs(fall[~mouth].mean())
