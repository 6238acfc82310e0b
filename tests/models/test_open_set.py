"""The set `open` as it ships: files and cards, the provenance of its pictures, and a run with it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from streamgate import Gate
from streamgate.config import load_config
from streamgate.engine import Engine
from streamgate.weights.store import resolve

FOLDER = Path(__file__).resolve().parents[2] / "models/open"
ROLES = ("detector", "recognizer", "expression", "ifqa")


def card(role: str) -> dict[str, Any]:
    path = FOLDER / role / "card.json"
    if not path.is_file():
        pytest.skip(f"models/open/{role} has no card.json yet: its recipe has not produced it")
    return json.loads(path.read_text())


@pytest.mark.parametrize("role", ROLES)
def test_cards_describe_the_files_and_name_their_teachers(role: str) -> None:
    found = card(role)
    assert hashlib.sha256((FOLDER / role / found["file"]).read_bytes()).hexdigest() == found["sha256"]
    assert found["licence"] and found["training_data"] and (found.get("distilled_from") or role == "ifqa")
    assert "PROVENANCE.md" in (FOLDER / role / "card.md").read_text()


@pytest.mark.parametrize("role", ROLES)
def test_the_evaluation_on_the_card_is_of_this_file(role: str) -> None:
    found = card(role)
    assert found["sha256"][:16] in (FOLDER / role / "card.md").read_text()
    assert json.loads((FOLDER / role / "evaluation.json").read_text())["sha256"] == found["sha256"]


def test_every_picture_is_listed_once_by_its_hash() -> None:
    lines = (FOLDER / "pictures.sha256").read_text().splitlines()
    form = re.compile(r"[0-9a-f]{64}  [\w.-]+(/[\w.-]+)?:[\w./ -]+")
    assert lines and all(form.fullmatch(line) for line in lines)
    assert len({line[66:] for line in lines}) == len(lines)


def test_the_provenance_has_the_numbers_of_the_list() -> None:
    page = (FOLDER / "PROVENANCE.md").read_text()
    names = [line[66:] for line in (FOLDER / "pictures.sha256").read_text().splitlines()]
    agencies = (
        "18F/", "presidential-innovation-fellows/", "usds/", "uswds/", "cfpb/", "GSA/", "deptofdefense/",
        "department-of-veterans-affairs/",
    )  # fmt: skip
    portraits = ("CivilServiceUSA/", "voteview/member_photos:images/bio_guide", "scikit-image:")
    snapshots = ("sumanvithaeadala/EthnicityDetection:fair_face/train/", agencies, "cjdowner/interfaces:")
    for start in (*portraits, *snapshots):
        count = sum(name.startswith(start) for name in names)
        assert count and re.search(rf"\| {count:,} \|", page), start
    assert not [name for name in names if "/wiki/" in name or "/manual/" in name or "governors" in name]
    assert "not legal advice" in " ".join(page.split())


def test_the_set_fills_what_a_run_needs_and_nothing_from_the_default_one() -> None:
    card("detector"), card("recognizer")
    found = resolve("open")
    assert set(found) == {"detector", "recognizer", "pose", "expression", "ifqa"}
    assert {weights.tier for weights in found.values()} == {"open"}
    assert found["recognizer"].calibration is not None and found["recognizer"].identity_threshold is not None


def test_a_run_with_the_set_leaves_out_only_the_measure_real() -> None:
    for role in ROLES:
        card(role)
    with Engine(load_config(), models="embedded", device="cpu") as engine:
        usual = set(engine.run_info().absent_measures)
    with Engine(load_config(), models="open", device="cpu") as engine:
        assert set(engine.run_info().absent_measures) - usual == {"real"}


def test_the_set_is_small_enough() -> None:
    files = [FOLDER / role / card(role)["file"] for role in ROLES]
    assert sum(file.stat().st_size for file in files) <= 12e6


def test_it_finds_and_scores_the_portrait() -> None:
    data = pytest.importorskip("skimage.data")
    card("detector"), card("recognizer")
    with Gate(models="open", device="cpu") as gate:
        (found,) = gate.score(np.ascontiguousarray(data.astronaut()))
        assert gate.score(np.zeros((240, 320, 3), np.uint8)) == []
    assert found.face.score > 0.5
