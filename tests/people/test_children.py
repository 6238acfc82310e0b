"""Faces that resemble each other because of their age are not taken for one person."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from streamgate.errors import WeightsError
from streamgate.frames import Template
from streamgate.networks.cohort import Cohort
from streamgate.weights.store import embedded_folder, from_card, resolve
from support.command import lines, streamgate
from support.real_weights import shared_part

MERGED = (
    ("04775", "04832", "04934"), ("04790", "04805"), ("04844", "04922", "04947"), ("04855", "04898"),
    ("04902", "04944"), ("1204062305", "04913"), ("4332978153", "04780"),
)  # fmt: skip
"""Toddlers who once were one person; pictures of hq_val and afw."""
NAMES = sorted({name for group in MERGED for name in group})
LENIENT = [
    word
    for setting in (
        "keep.expression=any", "keep.min_quality=0", "output.max_upscale=0", "measures.edge.min=0",
        "measures.eyes.min=0",
        "measures.ifqa.min=0", "measures.serfiq.min=10", "measures.occlusion.min=0", "measures.exposure.min=0",
        "measures.sharpness.min=0", "measures.yaw.max=50", "measures.pitch.max=50", "measures.roll.max=50",
    )
    for word in ("--set", setting)
]  # fmt: skip
"""A gate that all of them pass: merging is in question here, not which of them make good portraits."""


def test_no_two_toddlers_are_one_person(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in NAMES:
        folder = shared_part("faces/afw" if len(name) > 5 else "faces/hq_val")
        shutil.copy(folder / f"{name}.jpg", pictures)
    done = streamgate("run", pictures, "-o", tmp_path / "out", "--preset", "archive", "--quiet", *LENIENT)
    assert done.code == 0, done.err
    faces = lines(tmp_path / "out" / "faces.jsonl")
    assert len({face["name"] for face in faces}) == len(NAMES)
    assert [who for who, count in Counter(face["person_id"] for face in faces).items() if count > 1] == []


def cohort() -> Cohort:
    along = np.eye(4, dtype=np.float32)
    return Cohort(along[:2], nearest=1, usual=0.5)


def at(*values: float) -> Template:
    vector = np.array(values, np.float32)
    return Template(vector / np.linalg.norm(vector), 5, 0.8, 0.95, 60.0)


def test_a_face_close_to_the_cohort_has_to_be_closer_to_another_one() -> None:
    near, far = at(1, 0, 0.5, 0), at(0.1, 0, 1, 0)
    placed, unchanged = cohort().add_offset(near), cohort().add_offset(far)
    assert placed.offset == pytest.approx(1 / np.hypot(1, 0.5) - 0.5) and unchanged.offset == 0.0
    # Nothing becomes more alike than its cosine.
    assert unchanged.similarity(unchanged) == pytest.approx(1.0)
    assert placed.similarity(placed) == pytest.approx(1.0 - placed.offset)
    assert placed.similarity(unchanged) == unchanged.similarity(placed) == pytest.approx(
        float(near.vector @ far.vector) - placed.offset / 2
    )


def test_the_shipped_cohort_belongs_to_its_recognizer_and_to_no_other() -> None:
    weights = resolve("embedded")["recognizer"]
    assert weights.cohort is not None and weights.cohort.path.stat().st_size < 50_000
    read = Cohort.read(weights.cohort)
    assert np.linalg.norm(read.centroids, axis=1) == pytest.approx(1.0, abs=1e-3) and len(read.centroids) > read.nearest
    assert weights.cohort.path in [path for path, _ in weights.files]


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_cohort_that_is_missing_or_changed_is_named(damage: str, tmp_path: Path) -> None:
    shipped = embedded_folder()
    assert shipped is not None
    folder = tmp_path / "recognizer"
    shutil.copytree(shipped / "recognizer", folder, ignore=shutil.ignore_patterns("*.pth", "*.py", "__pycache__"))
    if damage == "missing":
        (folder / "cohort.npz").unlink()
    else:
        (folder / "cohort.npz").write_bytes(b"x")
    weights = from_card(folder, str(tmp_path))
    assert weights is not None and weights.cohort is not None
    with pytest.raises(WeightsError, match=r"cohort\.npz is missing or changed"):
        Cohort.read(weights.cohort)


def test_a_card_without_a_cohort_leaves_the_cosine(tmp_path: Path) -> None:
    shipped = embedded_folder()
    assert shipped is not None
    folder = tmp_path / "recognizer"
    folder.mkdir()
    shutil.copy(shipped / "recognizer" / "recognizer.onnx", folder)
    card = json.loads((shipped / "recognizer" / "card.json").read_text())
    del card["identity"]["cohort"]
    (folder / "card.json").write_text(json.dumps(card))
    weights = from_card(folder, str(tmp_path))
    assert weights is not None and weights.cohort is None and weights.identity_threshold is not None
