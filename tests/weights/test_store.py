"""Which weights serve which role."""

from __future__ import annotations

import hashlib
import json

import pytest

from real_weights import standard_models
from streamgate.errors import WeightsError
from streamgate.weights import store
from streamgate.weights.catalog import InputSpec, LogisticCalibration


def add_card(root, role, **changes):
    """A folder with a card and a file, as the recipes in models/ leave it."""
    folder = root / role
    folder.mkdir(parents=True)
    (folder / f"{role}.onnx").write_bytes(role.encode())
    card = {
        "name": f"{role}-own", "sha256": hashlib.sha256(role.encode()).hexdigest(), "licence": "Apache-2.0",
        "calibration": {"calibration_id": f"{role}/1", "x0": 0.4, "w": 0.1}, **changes,
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(card))


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    folder = tmp_path / "embedded"
    folder.mkdir()
    monkeypatch.setattr(store, "embedded_folder", lambda: folder)
    monkeypatch.setenv("STREAMGATE_MODELS", str(tmp_path / "standard"))
    return folder


def test_the_models_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMGATE_MODELS", str(tmp_path))
    assert store.models_folder() == tmp_path
    monkeypatch.delenv("STREAMGATE_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.models_folder() == tmp_path / "streamgate" / "models"


@pytest.mark.parametrize("models", ["embedded", "standard"])
def test_missing_roles_name_the_remedy(embedded, models):
    add_card(embedded, "detector")
    with pytest.raises(WeightsError, match=r"recognizer, pose; run `streamgate models pull`") as caught:
        store.resolve(models)
    assert caught.value.exit_code == 4


def test_shipped_ifqa_serves_beside_pulled_weights(embedded, monkeypatch):
    monkeypatch.setenv("STREAMGATE_MODELS", str(standard_models()))
    assert store.resolve("standard").missing == ("ifqa",)
    add_card(embedded, "ifqa", training_data=["faces A", "faces B"])
    found = store.resolve("standard")
    assert found.missing == ()
    assert [(one.role, one.wanted, one.used) for one in found.fallbacks] == [("ifqa", "standard", "embedded")]
    ifqa = found.weights["ifqa"]
    assert ifqa.training_data == "faces A, faces B"
    assert ifqa.calibration == LogisticCalibration("ifqa/1", 0.4, 0.1)
    assert ifqa.input == InputSpec("float32", "RGB", (127.5,) * 3, (1 / 127.5,) * 3)


def test_a_tier_falls_back_role_by_role(embedded):
    for role in ("detector", "recognizer", "pose"):
        add_card(embedded, role)
    assert store.resolve("embedded").fallbacks == ()
    fallbacks = store.resolve("standard").fallbacks
    assert [one.role for one in fallbacks] == ["detector", "recognizer", "pose"]
    assert {one.used for one in fallbacks} == {"embedded"}


def test_a_folder_of_cards_comes_before_the_tiers(embedded, tmp_path):
    for role in ("detector", "recognizer", "pose"):
        add_card(embedded, role)
    add_card(tmp_path / "mine", "pose", name="my-pose")
    found = store.resolve(str(tmp_path / "mine"))
    assert found.weights["pose"].name == "my-pose"
    assert [one.role for one in found.fallbacks] == ["detector", "recognizer"]
    with pytest.raises(WeightsError, match="neither"):
        store.resolve(str(tmp_path / "absent"))


def test_one_file_may_fill_two_roles(embedded):
    add_card(embedded, "detector", roles=["detector", "pose"])
    add_card(embedded, "recognizer")
    weights = store.resolve("embedded").weights
    assert weights["detector"] is weights["pose"]


def test_a_card_without_its_file_does_not_count_and_a_broken_card_is_named(embedded):
    add_card(embedded, "ifqa", file="later.onnx")
    assert store.scan("embedded") == []
    (embedded / "ifqa" / "card.json").write_text("{")
    with pytest.raises(WeightsError, match=r"card\.json: not readable"):
        store.scan("embedded")


def test_a_card_without_a_hash_is_refused(embedded):
    add_card(embedded, "ifqa", sha256=None)
    with pytest.raises(WeightsError, match="no sha256"):
        store.scan("embedded")
