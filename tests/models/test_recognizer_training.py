"""The recognizer's recipe: it runs, resumes, refuses what is damaged, and says what it cannot use."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.real_weights import standard_models

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("skimage")
pytest.importorskip("av")

from models.common.images import DataError  # noqa: E402
from models.recognizer import eyes  # noqa: E402
from models.recognizer.architecture import FaceNetwork  # noqa: E402
from models.recognizer.batches import Augmentation, Batches  # noqa: E402
from models.recognizer.covers import KINDS, draw_cover, visible_share  # noqa: E402
from models.recognizer.deploy import identity_threshold  # noqa: E402
from models.recognizer.faces import Canvases, FaceSet, people_in, person_of  # noqa: E402
from models.recognizer.last_layer import dropout_ridge, put  # noqa: E402
from models.recognizer.sections import best_threshold  # noqa: E402
from models.recognizer.teacher import Teacher, load_teacher  # noqa: E402
from models.recognizer.train import split_faces  # noqa: E402
from models.recognizer.trainer import Settings, Trainer  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
STILL = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
SETTINGS = Settings(
    maps=1.0, features=0.5, embedding=1.0, similarity=2.0, pose=0.5, visible=0.5, drop_rate=0.5, coarse_share=0.5,
    middle_share=0.5, steps=8, chain_from=2, chain_full=4, join=6, warmup=1, decay=2, rate=3e-3, weight_decay=0.0,
    ema=0.9,
)  # fmt: skip


def train(*arguments: str | Path, models: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "STREAMGATE_WORK"}
    environment["STREAMGATE_MODELS"] = str(models or standard_models())
    command = [sys.executable, "-W", "ignore", str(ROOT / "models/recognizer/train.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_smoke_run_leaves_every_deliverable_and_resumes(tmp_path: Path) -> None:
    first = train("--smoke", "--work", tmp_path, "--threads", "1")
    assert first.returncode == 0, first.stderr
    assert {p.name for p in (tmp_path / "smoke").iterdir()} == {
        "recognizer.onnx",
        "card.json",
        "affine.npz",
        "recognizer_warm.pth",
    }
    card = json.loads((tmp_path / "smoke/card.json").read_text())
    assert card["roles"] == ["recognizer", "pose"] and card["research_only"] is True
    assert (tmp_path / "smoke/recognizer_warm.pth").stat().st_size < 10_000_000
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
        (("BROKEN", "--work", "WORK"), "usable faces (20 unreadable)"),
        (("EMPTY",), "give --work DIR or set STREAMGATE_WORK"),
        (("EMPTY", "--work", str(ROOT / "models")), "inside the work tree"),
        (("EMPTY", "--work", "WORK", "--teacher", "EMPTY/none.pt"), "the teacher is missing"),
    ],
)
def test_bad_input_is_one_line_before_training(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    for name in ("EMPTY", "BROKEN", "WORK"):
        (tmp_path / name).mkdir()
    for i in range(20):
        (tmp_path / "BROKEN" / f"{i}.png").write_bytes(b"broken")
    places = {name: tmp_path / name for name in ("EMPTY", "BROKEN", "WORK")}
    result = train(*(places.get(a, a) for a in arguments))
    assert result.returncode == 2
    assert line in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_changed_teacher_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / "teacher.pt"
    fake.write_bytes(pickle.dumps({}))
    with pytest.raises(DataError, match="is not the teacher"):
        load_teacher(fake)


# --- who is trained on ------------------------------------------------------------------------------------------


def test_people_are_read_from_both_forms_of_pair_lists(tmp_path: Path) -> None:
    (tmp_path / "official").write_text("10\t300\nAnn_Lee\t1\t4\nAnn_Lee\t1\tBo\t2\n")
    (tmp_path / "short").write_text("Cy_Ho_0001.jpg Di_0002.jpg 0 3\n")
    assert people_in([tmp_path / "official", tmp_path / "short"]) == {"Ann_Lee", "Bo", "Cy_Ho", "Di"}
    assert person_of("lfw/Cy_Ho/Cy_Ho_0001.jpg") == "Cy_Ho"
    assert person_of("100_0_0_20170112213500903.jpg.chip.jpg") is None


def face_set(folder: Path, names: list[str], masked: list[bool] | None = None) -> FaceSet:
    """Random canvases; pose i degrees of yaw for face i."""
    pictures = np.random.default_rng(0).integers(0, 256, (len(names), 144, 144, 3), dtype=np.uint8)
    half = len(names) // 2
    for name, part in (("a.u8", pictures[:half]), ("b.u8", pictures[half:])):
        (folder / name).write_bytes(part.tobytes())
    pose = np.zeros((len(names), 3), np.float32)
    pose[:, 0] = np.arange(len(names))
    return FaceSet(
        Canvases([folder / "a.u8", folder / "b.u8"], [half, len(names) - half]),
        pose,
        np.zeros((len(names), 128), np.float32),
        np.array(masked or [False] * len(names)),
        names,
        [f"{i:064x}" for i in range(len(names))],
        {},
    )


def test_nobody_of_the_calibration_faces_is_trained_on(tmp_path: Path) -> None:
    names = [f"{folder}/{person}_{i:04d}.jpg" for folder in ("lfw", "grey") for person in "ABCDEF" for i in (1, 2)]
    faces = face_set(tmp_path, names)
    split = split_faces(faces, {"calibration": 3, "held_out": 4})
    people = faces.people()
    calibrated = {people[i] for i in split.calibration}
    assert len(split.calibration) == len(calibrated) == 3
    assert calibrated.isdisjoint(people[i] for i in [*split.train, *split.held_out])
    assert set(split.train).isdisjoint(split.held_out)


# --- batches ----------------------------------------------------------------------------------------------------


def test_a_batch_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    faces = face_set(tmp_path, [f"{i}.png" for i in range(6)])
    how = Augmentation(0.5, 0.5, 0.2, 0.5, 4.0, 2.0, 0.05)
    first, second = (Batches(pickle.loads(pickle.dumps(faces)), np.arange(6), 4, how, seed=3) for _ in range(2))
    assert all(np.array_equal(first[5][key], second[5][key]) for key in first[5])
    assert not np.array_equal(first[5]["face"], first[6]["face"])


def test_every_face_comes_once_an_epoch(tmp_path: Path) -> None:
    faces = face_set(tmp_path, [f"{i}.png" for i in range(6)])
    batches = Batches(faces, np.arange(6), 2, STILL, seed=3)
    yaws = np.concatenate([np.abs(batches[step]["pose"][:, 0]) for step in range(3)])
    assert sorted(yaws) == list(range(6))


def test_mirroring_negates_yaw_and_roll_and_nothing_else_moves_a_still_face(tmp_path: Path) -> None:
    faces = face_set(tmp_path, ["1.png", "2.png"])
    batches = Batches(faces, np.array([1, 1]), 2, STILL, seed=0)
    straight = np.asarray(faces.faces[1])[16:128, 16:128]
    for step in range(6):
        for crop, pose in zip(batches[step]["face"], batches[step]["pose"], strict=True):
            assert np.array_equal(crop, straight if pose[0] == 1 else straight[:, ::-1])
            assert pose.tolist() in ([1, 0, 0], [-1, 0, 0])


def test_real_masks_are_labelled_half_covered(tmp_path: Path) -> None:
    faces = face_set(tmp_path, ["1.png", "2.png"], masked=[False, True])
    batch = Batches(faces, np.arange(2), 2, STILL, seed=0)[0]
    assert sorted(batch["visible"]) == [0.5, 1.0]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_covers_hide_a_part_of_the_face(kind: str) -> None:
    shares = [visible_share(KINDS[kind][0](np.random.default_rng(seed))) for seed in range(20)]
    assert all(0.0 <= share <= 1.0 + 1e-6 for share in shares)
    assert np.median(shares) < 0.97


def test_a_cover_changes_the_picture_where_it_lies() -> None:
    plain = np.full((112, 112, 3), 90, np.uint8)
    covered, share = draw_cover(plain, np.random.default_rng(1), plain)
    assert covered.shape == plain.shape and covered.dtype == np.uint8
    assert share < 1 and (covered != plain).any()


# --- training ---------------------------------------------------------------------------------------------------


def trainer() -> Trainer:
    torch.manual_seed(5)
    teacher = Teacher(FaceNetwork(0.0).eval().requires_grad_(False), torch.device("cpu"))
    return Trainer(SETTINGS, teacher, 1, torch.device("cpu"), half=False)


def batch(count: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        "face": rng.integers(0, 256, (count, 112, 112, 3), dtype=np.uint8),
        "pose": np.zeros((count, 3), np.float32),
        "visible": np.ones(count, np.float32),
    }


def test_folding_leaves_the_teacher_as_it_was() -> None:
    network = FaceNetwork(0.0).eval().requires_grad_(False)
    planes = torch.randn(2, 3, 112, 112)
    wanted = network.taps(planes).features
    assert torch.allclose(Teacher(network, torch.device("cpu")).maps(planes)[-1], wanted, atol=1e-4)


def test_all_stages_run_and_a_resumed_run_repeats_them() -> None:
    straight, stopped = trainer(), trainer()
    for _ in range(4):
        straight.step(batch())
        stopped.step(batch())
    resumed = trainer()
    resumed.load_state(stopped.state())
    for _ in range(4):
        assert straight.step(batch()) == pytest.approx(resumed.step(batch()), rel=1e-3)
    assert straight.joined and straight.steps_done == resumed.steps_done == 8


def test_a_warm_start_goes_on_where_the_weights_were() -> None:
    earlier = trainer()
    earlier.step(batch())
    later = trainer()
    later.load_warm(earlier.warm_state())
    assert later.steps_done == 1
    faces = batch()["face"]
    assert later.look(faces)["embedding"] == pytest.approx(earlier.look(faces)["embedding"], abs=0.02)


# --- last layer and eyes ----------------------------------------------------------------------------------------


def test_the_solved_layer_minimises_the_loss_over_real_masks() -> None:
    """Against every mask there is: the expected loss of the solution, and of what lies around it."""
    rng = np.random.default_rng(0)
    features, targets, rate = rng.normal(1, 2, (30, 5)), rng.normal(0, 1, (30, 3)), 0.3
    weight, bias = dropout_ridge(features, targets, rate)
    masks = np.array([[(code >> k) & 1 for k in range(5)] for code in range(32)])
    chance = np.prod(np.where(masks == 1, 1 - rate, rate), axis=1)

    def loss(a: np.ndarray, c: np.ndarray) -> float:
        dropped = masks[:, None, :] * features[None] / (1 - rate)
        errors = np.square(dropped @ a.T + c - targets[None]).sum(axis=2).mean(axis=1)
        return float(chance @ errors)

    best = loss(weight, bias)
    for _ in range(50):
        assert loss(weight + rng.normal(0, 0.01, weight.shape), bias + rng.normal(0, 0.01, bias.shape)) > best
    # Where the gradient vanishes: steps to either side cost the same to second order.
    step = 1e-5 * rng.normal(0, 1, weight.shape)
    assert loss(weight + step, bias) == pytest.approx(loss(weight - step, bias), abs=1e-9)


def test_a_solved_layer_is_the_one_the_graph_takes() -> None:
    network = FaceNetwork(0.5).eval()
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(0, 1, (128, 512)), rng.normal(0, 1, 128)
    put(network, weight, bias)
    a, c = network.backbone.last_affine()
    assert a.numpy() == pytest.approx(weight, rel=1e-4, abs=1e-5) and c.numpy() == pytest.approx(bias, rel=1e-4)
    features = torch.randn(2, 512)
    assert torch.allclose(network.embed(features), features @ a.T + c, atol=1e-3)


def eye_set(folder: Path, opened: bool) -> FaceSet:
    """Grey canvases with a dark disc (open) or a dark line (closed) where each eye is."""
    import cv2

    folder.mkdir()
    faces = face_set(folder, [f"{i}.png" for i in range(24)])
    canvases = np.random.default_rng(int(opened)).integers(120, 160, (24, 144, 144, 3), dtype=np.uint8)
    for canvas in canvases:
        for x in (54, 90):
            axes = (6, 6) if opened else (10, 1)
            cv2.ellipse(canvas, (x, 68), axes, 0, 0, 360, (20, 20, 20), -1)
    (folder / "a.u8").write_bytes(canvases[:12].tobytes())
    (folder / "b.u8").write_bytes(canvases[12:].tobytes())
    digests = [f"{i * 2**32 // 24:08x}{i:056x}" for i in range(24)]
    return dataclasses.replace(faces, sha256=digests)


def test_the_eyes_head_learns_and_is_kept(tmp_path: Path) -> None:
    labelled = eyes.EyeFaces(eye_set(tmp_path / "open", True), eye_set(tmp_path / "closed", False))
    settings = eyes.Settings(steps=25, batch=8, rate=1e-2, assumed_open=0, held_out=0.25, doubtful=0.0)
    others, none = labelled.open, np.array([], int)
    first = eyes.trained(labelled, others, none, settings, STILL, 1, tmp_path)
    assert first.figures["auc"] > 0.95 and first.figures["held_out"] == [6, 6]
    assert first.closed is not None and len(first.closed) == 6
    again = eyes.trained(labelled, others, none, settings, STILL, 1, tmp_path)
    assert eyes.probabilities(again.head, first.closed) == pytest.approx(eyes.probabilities(first.head, first.closed))
    assert len(list(tmp_path.glob("eyes-*.pth"))) == 1


def test_no_face_is_both_trained_on_and_held_out(tmp_path: Path) -> None:
    labelled = eyes.EyeFaces(eye_set(tmp_path / "open", True), eye_set(tmp_path / "closed", False))
    train_rows, held = labelled.split(labelled.open, 0.25)
    assert set(train_rows).isdisjoint(held) and len(train_rows) + len(held) == 24


# --- figures ----------------------------------------------------------------------------------------------------


def test_the_identity_threshold_lies_beyond_the_data_by_the_tail() -> None:
    exponential = np.random.default_rng(0).exponential(0.05, 4_000_000)
    assert identity_threshold(exponential) == pytest.approx(0.05 * np.log(1e6), rel=0.1)
    bounded = 1 - np.random.default_rng(1).random(2_000_000) ** 0.25
    assert identity_threshold(bounded) == pytest.approx(1 - 1e-6**0.25, abs=0.01)


def test_equal_embeddings_have_no_threshold() -> None:
    with pytest.raises(DataError, match="every face has the same embedding"):
        identity_threshold(np.ones(5000))


def test_the_best_threshold_separates_what_can_be_separated() -> None:
    cosine = np.array([0.1, 0.2, 0.6, 0.7])
    threshold = best_threshold(cosine, np.array([False, False, True, True]))
    assert 0.2 < threshold < 0.6
