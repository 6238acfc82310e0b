"""The IFQA recipe: it runs, resumes, refuses what is damaged, and says what it cannot use."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("skimage")
pytest.importorskip("av")

from models.common.checkpoint import load_latest, save_checkpoint  # noqa: E402
from models.ifqa.batches import Batches, BatchSizes  # noqa: E402
from models.ifqa.losses import graded_pairs, lsgan, rank_loss, score_logit  # noqa: E402
from models.ifqa.steady import SHIFT_SHARE, draw_twins  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SIZES = BatchSizes(
    pairs=3,
    swaps=3,
    restored=1,
    restored_swaps=1,
    graded_groups=1,
    graded_faces=2,
    graded_severities=3,
    steady=2,
    kept=2,
    unreal=2,
)


def train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "STREAMGATE_WORK"}
    command = [sys.executable, "-W", "ignore", str(ROOT / "models/ifqa/train.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_a_smoke_run_with_the_recipe_of_the_open_set_writes_its_terms(tmp_path: Path) -> None:
    config = ROOT / "models/open/ifqa/config.toml"
    done = train("--smoke", "--config", config, "--fresh", "--work", tmp_path, "--threads", "1")
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "smoke/card.json").read_text())
    assert card["name"] == "ifqa-open" and card["research_only"] is False
    assert card["licence"].startswith("Apache-2.0")


def test_a_smoke_run_with_the_settings_for_fine_tuning_writes_every_deliverable(tmp_path: Path) -> None:
    done = train("--smoke", "--config", ROOT / "models/ifqa/finetune.toml", "--work", tmp_path, "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "smoke").iterdir()} == {"ifqa.onnx", "card.json", "ifqa_warm.pth"}


def test_smoke_run_leaves_every_deliverable_and_resumes(tmp_path: Path) -> None:
    first = train("--smoke", "--work", tmp_path, "--threads", "1")
    assert first.returncode == 0, first.stderr
    assert {p.name for p in (tmp_path / "smoke").iterdir()} == {"ifqa.onnx", "card.json", "ifqa_warm.pth"}
    card = json.loads((tmp_path / "smoke/card.json").read_text())
    assert card["role"] == "ifqa" and card["gmac"] <= 1.7
    assert card["research_only"] is True and "non-commercial" in card["licence"]
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    again = train("--smoke", "--work", tmp_path, "--threads", "1")
    assert again.returncode == 0, again.stderr
    assert f"refused {newest.name}" in again.stdout
    assert "at step 6 of 12" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("EMPTY", "--work", "WORK"), "no pictures in"),
        (("BROKEN", "--work", "WORK"), "usable faces (300 unreadable"),
        (("EMPTY",), "give --work DIR or set STREAMGATE_WORK"),
        (("EMPTY", "--work", str(ROOT / "models")), "inside the work tree"),
    ],
)
def test_bad_input_is_one_line_before_training(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    for name in ("EMPTY", "BROKEN", "WORK"):
        (tmp_path / name).mkdir()
    for i in range(300):
        (tmp_path / "BROKEN" / f"{i}.png").write_bytes(b"broken")
    places = {name: tmp_path / name for name in ("EMPTY", "BROKEN", "WORK")}
    result = train(*(places.get(a, a) for a in arguments))
    assert result.returncode == 2
    assert line in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_truncated_checkpoint_is_refused_and_the_one_before_used(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1})
    newest = save_checkpoint(tmp_path, 2, {"step": 2, "weights": torch.zeros(1000)})
    newest.write_bytes(newest.read_bytes()[:-100])
    state, refused = load_latest(tmp_path)
    assert state == {"step": 1} and refused == [newest.name]


def test_only_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(4):
        save_checkpoint(tmp_path, step, {"step": step})
    assert [p.name[:13] for p in sorted(tmp_path.iterdir())] == ["step-00000002", "step-00000003"]


@pytest.fixture(scope="module")
def batches() -> Batches:
    rng = np.random.default_rng(0)
    return Batches(rng.integers(0, 256, (5, 256, 256, 3), np.uint8), np.arange(5), SIZES, seed=9)


def test_a_batch_depends_on_seed_and_step_alone(batches: Batches) -> None:
    first, second, other = batches[3], batches[3], batches[4]
    assert all(np.array_equal(first[k], second[k]) for k in first)
    assert not np.array_equal(first["hq"], other["hq"])


def test_batch_shapes_and_label_maps(batches: Batches) -> None:
    batch = batches[0]
    assert batch["hq"].shape == batch["lq"].shape == (3, 256, 256, 3)
    assert batch["graded"].shape == (6, 256, 256, 3)
    assert batch["swap_label"].shape == (3, 64, 64)
    # A clean face with degraded regions is mostly labelled real, a degraded one with clean regions mostly fake.
    for label, clean in zip(batch["swap_label"], batch["swap_clean"], strict=True):
        assert (label.mean() > 0.5) == clean


def test_graded_pairs_stay_within_a_group_and_need_a_gap() -> None:
    group, face = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 2])
    severity = torch.tensor([0.1, 0.2, 0.28, 0.9])
    milder, stronger = graded_pairs(group, severity, face)
    # 0.2 and 0.28 are two faces less than 0.12 apart; the second group has nothing to pair with.
    assert sorted(zip(milder.tolist(), stronger.tolist(), strict=True)) == [(0, 1), (0, 2)]


def test_losses_fall_where_they_should() -> None:
    pool = torch.full((4, 4), 1 / 16)
    real, fake = torch.full((1, 4, 4), 3.0), torch.full((1, 4, 4), -3.0)
    ones = torch.ones(4, 4)
    assert lsgan(real, torch.tensor(1.0), ones) < lsgan(fake, torch.tensor(1.0), ones)
    better, worse = score_logit(real, pool, 2.0), score_logit(fake, pool, 2.0)
    assert better.item() == pytest.approx(1.5, abs=1e-4)
    assert rank_loss(better, worse, 1.0) < rank_loss(worse, better, 1.0)
    assert rank_loss(better[:0], worse[:0], 1.0) == 0


def test_twins_are_one_face_cut_out_twice_a_hair_apart(face: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    for _ in range(8):
        one, two = draw_twins(face, 128, rng)
        assert one.shape == two.shape == (128, 128, 3) and one.dtype == two.dtype == np.uint8
        assert not np.array_equal(one, two)
        soft = [cv2.GaussianBlur(picture, (0, 0), 2).mean(axis=2).astype(np.float32) for picture in (one, two)]
        shift, _ = cv2.phaseCorrelate(*soft)
        assert np.hypot(*shift) < 6 * SHIFT_SHARE * 128 / 4
        # Very different from two faces, and from a face and its mirror image.
        assert np.abs(soft[0] - soft[1]).mean() < 0.4 * np.abs(soft[0] - soft[1][:, ::-1]).mean()


def test_everyday_photographs_do_not_change_the_rest_of_a_batch(batches: Batches) -> None:
    sizes = dataclasses.replace(SIZES, everyday=2)
    with pytest.raises(ValueError, match="no everyday photographs"):
        Batches(batches.faces, batches.indexes, sizes, seed=9)
    more = Batches(batches.faces, batches.indexes, sizes, seed=9, everyday=batches.faces[:1])[3]
    without = batches[3]
    assert more["everyday"].shape == (2, 256, 256, 3) and without["everyday"].shape == (0, 256, 256, 3)
    assert all(np.array_equal(more[k], without[k]) for k in without if k != "everyday")


def test_missing_everyday_photographs_are_reported_with_their_option(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"faces/{i}.png"), rng.integers(0, 256, (256, 256, 3), np.uint8))
    settings = (ROOT / "models/ifqa/finetune.toml").read_text()
    for name, value in (("cache_px", 256), ("minimum_faces", 8), ("held_out", 4), ("calibration", 4)):
        settings = re.sub(rf"(?m)^{name} = \d+", f"{name} = {value}", settings)
    (tmp_path / "settings.toml").write_text(settings)
    done = train(
        tmp_path / "faces", "--config", tmp_path / "settings.toml", "--work", tmp_path / "work", "--threads", "1"
    )
    assert done.returncode == 2 and "--everyday" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    # Settings that do not use them say so, instead of ignoring them.
    (tmp_path / "settings.toml").write_text(re.sub(r"(?m)^everyday = 2", "everyday = 0", settings))
    given = ["--config", tmp_path / "settings.toml", "--work", tmp_path / "work", "--threads", "1"]
    done = train(tmp_path / "faces", "--everyday", tmp_path / "faces", *given)
    assert done.returncode == 2 and "no effect" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    for content in (re.sub(r"(?m)^everyday = 2", "unknown = 2", settings), "broken"):
        (tmp_path / "settings.toml").write_text(content)
        done = train(tmp_path / "faces", *given)
        assert done.returncode == 2 and "settings.toml" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_evaluation_pictures_are_not_among_the_everyday_photographs(tmp_path: Path) -> None:
    from models.common.overlap import EvaluationSet
    from models.ifqa.train import aligned_faces

    rng = np.random.default_rng(0)
    for folder in ("everyday", "evaluation"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        face = cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / f"everyday/{i}.png"), face)
    cv2.imwrite(str(tmp_path / "evaluation/same.jpg"), face)
    evaluation = EvaluationSet.read([tmp_path / "evaluation"])
    assert len(aligned_faces([tmp_path / "everyday"], "photographs", tmp_path)) == 3
    left = aligned_faces([tmp_path / "everyday"], "photographs", tmp_path, evaluation)
    assert len(left) == 2 and not any(np.array_equal(one, face[..., ::-1]) for one in left)


def test_the_weights_of_two_runs_are_averaged(tmp_path: Path) -> None:
    first = train("--smoke", "--work", tmp_path / "a", "--threads", "1")
    second = train("--smoke", "--work", tmp_path / "b", "--threads", "1", "--seed", "5")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    runs = [torch.load(tmp_path / run / "smoke/ifqa_warm.pth", weights_only=True)["D"] for run in "ab"]
    other = tmp_path / "b/smoke/ifqa_warm.pth"
    average = ("--export", "--average", other, "--share", "0.25")
    done = train("--smoke", "--work", tmp_path / "a", "--threads", "1", *average)
    assert done.returncode == 0, done.stderr
    mixed = torch.load(tmp_path / "a/smoke/ifqa_warm.pth", weights_only=True)["D"]
    name = next(k for k, v in runs[0].items() if v.is_floating_point() and not torch.equal(v, runs[1][k]))
    wanted = 0.75 * runs[0][name].float() + 0.25 * runs[1][name].float()
    assert torch.allclose(mixed[name].float(), wanted, atol=2e-3)
    other.write_bytes(b"nothing")
    broken = train("--smoke", "--work", tmp_path / "a", "--threads", "1", "--export", "--average", other)
    assert broken.returncode == 2 and len(broken.stderr.strip().splitlines()) == 1
