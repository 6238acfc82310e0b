"""Which weights serve which role."""

from __future__ import annotations

import hashlib
import json

import pytest

from streamgate.errors import WeightsError
from streamgate.weights import store
from streamgate.weights.catalog import InputSpec, LogisticCalibration
from streamgate.weights.listing import list_models, verify
from support.real_weights import standard_models


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


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("embedded", "no weights for recognizer, pose; the package is damaged"),
        ("standard", "no weights for detector, recognizer, pose; run `streamgate models pull`"),
    ],
)
def test_missing_roles_name_the_remedy(embedded, models, said):
    add_card(embedded, "detector")
    with pytest.raises(WeightsError, match=said) as caught:
        store.resolve(models)
    assert caught.value.exit_code == 4


def test_a_role_that_only_optional_measures_need_may_be_missing(embedded, monkeypatch):
    monkeypatch.setenv("STREAMGATE_MODELS", str(standard_models()))
    add_card(embedded, "ifqa", training_data=["faces A", "faces B"])
    assert "ifqa" not in store.resolve("standard")
    ifqa = store.resolve("standard,embedded")["ifqa"]
    assert ifqa.tier == "embedded"
    assert ifqa.training_data == "faces A, faces B"
    assert ifqa.calibration == LogisticCalibration("ifqa/1", 0.4, 0.1)
    assert ifqa.input == InputSpec("float32", "RGB", (127.5,) * 3, (1 / 127.5,) * 3)


def test_weights_of_another_set_serve_only_when_it_is_named(embedded, tmp_path):
    for role in ("detector", "recognizer", "pose"):
        add_card(embedded, role)
    mine = str(tmp_path / "mine")
    add_card(tmp_path / "mine", "pose", name="my-pose")
    with pytest.raises(WeightsError, match=f"no weights for detector, recognizer; .* --models {mine},embedded"):
        store.resolve(mine)
    found = store.resolve(f"{mine},embedded")
    assert {role: weights.name for role, weights in found.items()} == {
        "detector": "detector-own", "recognizer": "recognizer-own", "pose": "my-pose"
    }  # fmt: skip
    assert store.resolve(f"embedded,{mine}")["pose"].name == "pose-own"
    with pytest.raises(WeightsError, match="neither"):
        store.resolve(str(tmp_path / "absent"))
    with pytest.raises(WeightsError, match="neither"):
        store.resolve("embedded,")


def test_a_folder_whose_card_fills_no_role_is_refused(embedded, tmp_path):
    for role in ("detector", "recognizer", "pose"):
        add_card(tmp_path / "mine", role)
    add_card(tmp_path / "mine", "landmarks")
    with pytest.raises(WeightsError, match=r"landmarks/card\.json: the card has no valid role; .*detector, recognizer"):
        store.resolve(str(tmp_path / "mine"))


def test_the_set_open_is_a_folder_inside_the_packaged_one(embedded, monkeypatch):
    for role in ("detector", "recognizer", "pose"):
        add_card(embedded, role)
        add_card(embedded / "open", role, name=f"{role}-open", licence="free")
    assert {weights.name for weights in store.resolve("embedded").values()} == {
        "detector-own", "recognizer-own", "pose-own"
    }  # fmt: skip
    found = store.resolve("open")
    assert {weights.name for weights in found.values()} == {"detector-open", "recognizer-open", "pose-open"}
    assert {weights.tier for weights in found.values()} == {"open"}
    states = {state.name: state for state in list_models()}
    assert states["pose-open"].licence == "free" and states["pose-open"].in_use == ()
    assert states["pose-own"].in_use == ("pose",)
    (embedded / "open" / "pose" / "pose.onnx").write_bytes(b"changed")
    assert {w.name: why for w, why in verify() if why} == {"pose-open": "pose.onnx has changed; reinstall streamgate"}
    monkeypatch.setattr(store, "embedded_folder", lambda: None)
    with pytest.raises(WeightsError, match="no weights for detector, recognizer, pose; the package is damaged"):
        store.resolve("open")


def test_one_file_may_fill_two_roles(embedded):
    add_card(embedded, "detector", roles=["detector", "pose"])
    add_card(embedded, "recognizer")
    weights = store.resolve("embedded")
    assert weights["detector"] is weights["pose"]


def test_a_card_without_its_file_does_not_count_and_a_broken_card_is_named(embedded):
    add_card(embedded, "ifqa", file="later.onnx")
    assert store.scan("embedded") == []
    (embedded / "ifqa" / "card.json").write_text("{")
    with pytest.raises(WeightsError, match=r"card\.json is not readable"):
        store.scan("embedded")


def test_a_card_without_a_hash_is_refused(embedded):
    add_card(embedded, "ifqa", sha256=None)
    with pytest.raises(WeightsError, match="no sha256"):
        store.scan("embedded")
