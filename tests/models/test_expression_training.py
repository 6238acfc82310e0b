"""The expression network's recipe: it runs, resumes, mirrors what it shows, and says what it cannot use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("skimage")

from models.expression.architecture import MIRRORED_POINTS, POINTS, SIGNALS  # noqa: E402
from models.expression.batches import Augmentation, Batches, gaze_of, mirrored_signals  # noqa: E402
from models.expression.dataset import CANVAS, FaceSet, filled, prepare  # noqa: E402
from models.expression.faces import BORDER_LEVEL  # noqa: E402
from models.expression.picks import Labelled, monotone, relative, shares  # noqa: E402
from models.expression.smoke import synthetic_crops  # noqa: E402
from streamgate.measures.gaze import LEVEL  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
STILL = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "STREAMGATE_WORK"}
    command = [sys.executable, "-W", "ignore", str(ROOT / "models/expression/train.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_smoke_run_leaves_every_deliverable_and_resumes(tmp_path: Path) -> None:
    first = train("--smoke", "--work", tmp_path, "--threads", "1")
    assert first.returncode == 0, first.stderr
    made = {path.name for path in (tmp_path / "smoke").iterdir()}
    assert made == {"expression.onnx", "card.json", "expression_warm.pth"}
    card = json.loads((tmp_path / "smoke/card.json").read_text())
    assert card["output"]["signals"] == list(SIGNALS) and card["research_only"] is True
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    again = train("--smoke", "--work", tmp_path, "--threads", "1")
    assert again.returncode == 0, again.stderr
    assert f"refused {newest.name}" in again.stdout and "at step 3 of 6" in again.stdout


def test_crops_without_labels_are_named(tmp_path: Path) -> None:
    run = train("--work", tmp_path)
    assert run.returncode == 2
    assert "teacher.py" in run.stderr and "Traceback" not in run.stderr


@pytest.fixture
def faces(tmp_path: Path) -> FaceSet:
    synthetic_crops(tmp_path / "crops")
    return prepare([tmp_path / "crops/synthetic"], tmp_path / "aligned")


def test_batches_depend_on_seed_and_step_alone(faces: FaceSet) -> None:
    how = Augmentation(0.5, 0.2, 0.5, 4.0, 2.0, 0.05)
    first, second = (Batches(faces, np.arange(len(faces)), 6, how, 3) for _ in range(2))
    for name, values in first[5].items():
        assert np.array_equal(values, second[5][name])
    assert not np.array_equal(first[5]["face"], first[6]["face"])


def test_a_mirrored_view_mirrors_its_labels(faces: FaceSet) -> None:
    """Both views of one face: yaw changes its sign, points their side, a left signal goes to the right."""
    batch = Batches(faces, [1], 24, STILL, 0)[0]
    yaw = batch["pose"][:, 0]
    one, other = int(np.argmax(yaw)), int(np.argmin(yaw))
    assert yaw[one] == pytest.approx(-yaw[other]) and yaw[one] != 0
    assert np.array_equal(batch["face"][one], batch["face"][other][:, ::-1])
    flipped = batch["points"][other][list(MIRRORED_POINTS)] * [-1, 1] + [127, 0]
    assert flipped == pytest.approx(batch["points"][one], abs=0.01)
    left, right = SIGNALS.index("eyeBlinkLeft"), SIGNALS.index("eyeBlinkRight")
    assert batch["signals"][one, left] == pytest.approx(batch["signals"][other, right])
    across = SIGNALS.index("irisAcrossLeft"), SIGNALS.index("irisAcrossRight")
    assert batch["signals"][one, across[0]] == pytest.approx(-batch["signals"][other, across[1]])


def test_grey_around_a_close_picture_is_filled() -> None:
    crop = np.full((384, 384, 3), BORDER_LEVEL, np.uint8)
    crop[80:300, 60:330] = np.random.default_rng(0).integers(0, 100, (220, 270, 3), dtype=np.uint8)
    assert not (filled(crop) == BORDER_LEVEL).all(axis=2).any()
    assert np.array_equal(filled(crop)[120:200, 120:200], crop[120:200, 120:200])


def test_every_point_has_a_mirror_image() -> None:
    assert sorted(MIRRORED_POINTS) == list(range(len(POINTS))) and len(set(POINTS)) == len(POINTS)
    assert [MIRRORED_POINTS[i] for i in MIRRORED_POINTS] == list(range(len(POINTS)))
    assert CANVAS[0] > CANVAS[1]


def test_shares_count_the_pick_of_each_track_with_a_good_face() -> None:
    track = np.array(["a", "a", "b", "b", "c"])
    labelled = Labelled(np.array(["g", "b", "m", "g", "b"]), [""] * 5, track, track, np.zeros(5))
    found = shares(np.array([2.0, 1.0, 3.0, 1.0, 9.0]), labelled)
    assert (found["g"], found["m"], found["b"], found["tracks"]) == (0.5, 0.5, 0.0, 2)
    assert relative(np.array([[3.0], [3.0], [1.0], [1.0], [7.0]]), track).max() == 0


def test_a_monotone_fit_never_rewards_what_is_worse() -> None:
    """In these rows good faces have more of the second value, by chance: it may not count in their favour."""
    rng = np.random.default_rng(0)
    good = (np.arange(400) % 2).astype(float)
    rows = np.column_stack([1.0 - good + rng.normal(0, 0.3, 400), good + rng.normal(0, 0.3, 400)])
    answer = monotone(rows, good, np.repeat(["a", "b"], 200))
    grid = np.linspace(-1, 2, 20)
    for column in range(2):
        probe = np.full((20, 2), 0.5)
        probe[:, column] = grid
        assert np.all(np.diff(answer(probe)) <= 1e-9)
    assert answer(np.array([[0.0, 0.5]]))[0] > answer(np.array([[1.0, 0.5]]))[0] + 1


def test_gaze_is_the_heads_turn_and_the_eyes_together() -> None:
    """A head turned by 15 degrees whose eyes turn back half as far as a look reaches sees the camera."""
    signals = np.zeros((1, len(SIGNALS)), np.float32)
    for name in ("eyeLookInLeft", "eyeLookOutRight"):
        signals[0, SIGNALS.index(name)] = 0.5
    pose = np.array([[15.0, LEVEL, 0.0]])
    assert gaze_of(signals, pose) == pytest.approx(np.zeros((1, 2)), abs=1e-5)
    source, sign = mirrored_signals()
    aside = np.array([[5.0, 3.0, 0.0]])
    mirrored = gaze_of(signals[:, source] * sign, aside * [-1, 1, -1])
    assert mirrored == pytest.approx(gaze_of(signals, aside) * [-1, 1])
