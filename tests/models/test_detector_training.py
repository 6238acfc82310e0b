"""The detector's recipe: it runs, resumes, refuses what is damaged, and says what it cannot use."""

from __future__ import annotations

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
from models.detector import faces as rows_of  # noqa: E402
from models.detector.losses import match, task  # noqa: E402
from models.detector.monitor import compare, held_out  # noqa: E402
from models.detector.teacher import Teacher, load_teacher  # noqa: E402
from models.detector.trainer import Settings, Trainer  # noqa: E402
from models.detector.units import MAPS, blocks, new_network, normalise, run, same  # noqa: E402
from models.detector.whitening import Whitening  # noqa: E402
from streamgate.networks.detector import Detector  # noqa: E402
from streamgate.networks.priors import decode, priors  # noqa: E402
from streamgate.networks.sessions import Session  # noqa: E402
from streamgate.weights.store import from_card  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(
    maps=1.5, maps_joined=0.2, class_=1.0, place=1.0, task_class=0.5, task_box=0.5, task_points=0.25, negatives=7,
    calibrate=1, join=60, steps=64, warmup=1, decay=4, rate_alone=1e-2, rate=1e-3, ema=0.9,
)  # fmt: skip


def train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "STREAMGATE_WORK"}
    environment["STREAMGATE_MODELS"] = str(standard_models())
    command = [sys.executable, "-W", "ignore", str(ROOT / "models/detector/train.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_smoke_run_leaves_every_deliverable_and_resumes(tmp_path: Path) -> None:
    first = train("--smoke", "--work", tmp_path, "--threads", "1")
    assert first.returncode == 0, first.stderr
    made = tmp_path / "smoke"
    assert {p.name for p in made.iterdir()} == {"detector.onnx", "card.json", "detector_warm.pth"}
    card = json.loads((made / "card.json").read_text())
    assert card["roles"] == ["detector"] and card["research_only"] is True
    assert (made / "detector.onnx").stat().st_size < 1_200_000
    weights = from_card(made, "made")
    assert weights is not None
    found = Detector(Session(weights, "cpu")).detect([np.zeros((70, 99, 3), np.uint8)])
    assert len(found) == 1
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
        (("BROKEN", "--work", "WORK"), "only 0 pictures with a face (3 unreadable)"),
        (("EMPTY",), "give --work DIR or set STREAMGATE_WORK"),
        (("EMPTY", "--work", str(ROOT / "models")), "inside the work tree"),
        (("EMPTY", "--work", "WORK", "--teacher", "EMPTY/none.pt"), "the teacher is missing"),
        (("--labels", "LABELS/label.txt", "--work", "WORK"), "label.txt:2: box -5 x 9: sides must be positive"),
    ],
)
def test_bad_input_is_one_line_before_training(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    from models.common.images import write_rgb

    for name in ("EMPTY", "BROKEN", "WORK", "LABELS"):
        (tmp_path / name).mkdir()
    for i in range(3):
        (tmp_path / "BROKEN" / f"{i}.png").write_bytes(b"broken")
    write_rgb(tmp_path / "LABELS/a.png", np.zeros((50, 50, 3), np.uint8))
    (tmp_path / "LABELS/label.txt").write_text("# a.png\n1 1 -5 9\n")
    names = ("EMPTY", "BROKEN", "WORK", "LABELS")
    places = [str(tmp_path / a) if a.split("/")[0] in names else a for a in arguments]
    result = train(*places)
    assert result.returncode == 2
    assert line in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_changed_teacher_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / "teacher.pt"
    fake.write_bytes(pickle.dumps({}))
    with pytest.raises(DataError, match="is not the teacher"):
        load_teacher(fake)


# --- network and trainer ----------------------------------------------------------------------------------------


def random_teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher(new_network().eval(), torch.device("cpu"))


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    faces = np.zeros((2, 1, rows_of.COLUMNS), np.float32)
    faces[:, 0, rows_of.BOX] = 20, 20, 60, 60
    faces[:, 0, rows_of.POINTS] = [30, 35, 50, 35, 40, 42, 32, 52, 48, 52]
    faces[:, 0, [rows_of.HAS_POINTS, rows_of.SCORE]] = 1
    return {"image": rng.integers(0, 256, (2, 96, 128, 3), dtype=np.uint8), "faces": faces}


def test_units_run_in_order_are_the_network() -> None:
    network = new_network().eval()
    planes = normalise(torch.as_tensor(batch()["image"]))
    with torch.no_grad():
        made, heads = run(network, planes, same)
        whole = network(planes)
    assert tuple(made) and set(made) == set(MAPS) == {name for name, _ in blocks(network)}
    for mine, theirs in zip(heads, whole, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_the_teacher_is_the_standard_detector_with_its_norms_folded() -> None:
    models = standard_models()
    network = load_teacher(models / "downloads/retinaface_mnet025_foamliu.pth")
    planes = normalise(torch.as_tensor(batch()["image"]))
    with torch.no_grad():
        before = network(planes)
    after = Teacher(network, torch.device("cpu")).look(planes)[1]
    for mine, theirs in zip(after, before, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-3)


def test_units_learn_alone_then_labels_teach_the_whole() -> None:
    trainer = Trainer(SETTINGS, random_teacher(), 3, torch.device("cpu"), half=False)
    figures = [trainer.step(batch(i)) for i in range(SETTINGS.steps)]
    assert figures[0] == figures[1] == {}  # norms, then covariances
    alone, joined = figures[2 : SETTINGS.join], figures[SETTINGS.join :]
    assert not any("class" in step for step in alone) and all("class" in step for step in joined)
    assert alone[-1]["map_body0"] < 0.5 * alone[0]["map_body0"]


def test_whitened_coordinates_leave_the_network_as_it_was_and_keep_the_mean_output() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4)).eval()
    x = torch.rand(2, 3, 16, 16) + 5
    before, weight = network(x), network[0].weight.detach().clone()
    whitening = Whitening(network)
    with whitening.measure(), torch.no_grad():
        network(x)
    whitening.settle()
    whitening.push()
    assert torch.allclose(network[0].weight, weight, atol=1e-3)
    with torch.no_grad():
        for u in whitening.parameters():
            u.mul_(3.0)
    whitening.push()
    after = network(x)
    assert not torch.allclose(after, before, atol=0.05)
    assert torch.allclose(after.mean(dim=(0, 2, 3)), before.mean(dim=(0, 2, 3)), atol=0.02)


def test_a_resumed_run_repeats_the_uninterrupted_one() -> None:
    def fresh() -> Trainer:
        return Trainer(SETTINGS, random_teacher(), 3, torch.device("cpu"), half=False)

    whole, half = fresh(), fresh()
    for i in range(8):
        whole.step(batch(i))
    for i in range(4):
        half.step(batch(i))
    resumed = fresh()
    resumed.load_state(half.state())
    for i in range(4, 8):
        resumed.step(batch(i))
    for mine, theirs in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_warm_weights_carry_over() -> None:
    trainer = Trainer(SETTINGS, random_teacher(), 3, torch.device("cpu"), half=False)
    for i in range(5):
        trainer.step(batch(i))
    other = Trainer(SETTINGS, random_teacher(), 4, torch.device("cpu"), half=False)
    other.load_warm(trainer.warm_state())
    assert other.steps_done == 5
    mine, theirs = trainer.look(batch()["image"])[1], other.look(batch()["image"])[1]
    assert np.abs(mine - theirs).mean() < 0.02


# --- matching ---------------------------------------------------------------------------------------------------


def test_targets_decode_back_to_the_face() -> None:
    grid = priors(96, 128)
    targets = match(torch.as_tensor(batch()["faces"]), torch.from_numpy(grid))
    positive = (targets.kind[0] == 1).numpy()
    assert positive.sum() >= 1
    boxes, points = decode(targets.loc[0].numpy()[positive], targets.points[0].numpy()[positive], grid[positive])
    assert np.allclose(boxes, [20, 20, 60, 60], atol=1e-2)
    assert np.allclose(points[0].reshape(-1), batch()["faces"][0, 0, rows_of.POINTS], atol=1e-2)


def test_unsure_faces_teach_nothing_and_padding_is_no_face() -> None:
    grid = torch.from_numpy(priors(96, 128))
    faces = torch.as_tensor(batch()["faces"])
    faces[..., rows_of.SCORE] = 0
    kind = match(faces, grid).kind
    assert not (kind == 1).any() and (kind == -1).any() and (kind == 0).any()
    faces[..., rows_of.SCORE] = -1
    assert (match(faces, grid).kind == 0).all()


def test_every_face_has_a_prior_however_small() -> None:
    grid = torch.from_numpy(priors(96, 128))
    faces = torch.as_tensor(batch()["faces"])
    faces[:, 0, rows_of.BOX] = torch.tensor([60.0, 60.0, 69.0, 69.0])
    assert ((match(faces, grid).kind == 1).sum(dim=1) >= 1).all()


def test_scenes_without_faces_teach_background() -> None:
    grid = torch.from_numpy(priors(96, 128))
    faces = torch.full((2, 1, rows_of.COLUMNS), -1.0)
    targets = match(faces, grid)
    alarmed = torch.zeros(2, len(grid), 2)
    alarmed[..., 1] = 5.0
    quiet = torch.zeros(2, len(grid), 2)
    quiet[..., 0] = 5.0
    rest = torch.zeros(2, len(grid), 4), torch.zeros(2, len(grid), 10)
    loud, calm = (task((rest[0], logits, rest[1]), targets, 7)["class"] for logits in (alarmed, quiet))
    assert loud > 4 > 0.1 > calm >= 0


# --- the log ----------------------------------------------------------------------------------------------------


def test_found_faces_false_alarms_and_landmarks_are_told_apart() -> None:
    faces = batch()["faces"][0]
    boxes = np.array([[21.0, 20, 60, 61], [80, 10, 110, 40]])
    points = np.stack([faces[0, rows_of.POINTS].reshape(5, 2) + 4, np.zeros((5, 2))])
    hits, alarms, errors = compare(boxes, points, faces)
    assert hits == [(40.0, True)] and alarms == 1
    assert errors == [pytest.approx(np.hypot(4, 4) / 40)]


def test_held_out_pictures_have_both_kinds_and_stay_held_out() -> None:
    digests = [f"{(i * 37) % 100:02d}" for i in range(40)]
    backgrounds = np.array([i % 4 == 0 for i in range(40)])
    chosen, apart = held_out(digests, backgrounds, 8)
    assert sorted([*chosen, *apart]) == list(range(40))
    assert (~backgrounds[apart]).sum() == 8 and backgrounds[apart].sum() == 2
    # A path may be given several times: no copy of a held-out picture is trained on.
    chosen, apart = held_out(digests * 3, np.tile(backgrounds, 3), 8)
    assert sorted([*chosen, *apart]) == list(range(120))
    assert not {digests[i % 40] for i in chosen} & {digests[i % 40] for i in apart}
    chosen, apart = held_out(digests, backgrounds, 8)
    fewer = held_out(digests[:30], backgrounds[:30], 8)[1]
    assert {digests[i] for i in apart if i < 30} <= {digests[i] for i in fewer}
