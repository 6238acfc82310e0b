"""The recognizer of `--models open`: the published network it is made of, labels from a file, heads trained alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.real_weights import shared_part

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("skimage")

from models.common.images import DataError, write_rgb  # noqa: E402
from models.recognizer.architecture import SHAPES, FaceNetwork, export_onnx  # noqa: E402
from models.recognizer.faces import LeaveOut, prepare  # noqa: E402
from models.recognizer.labels import FileLabels  # noqa: E402
from models.recognizer.squeezed import POINTS, SIDE, Enlarge, load_published  # noqa: E402
from models.recognizer.teacher import Teacher, load_teacher  # noqa: E402
from models.recognizer.trainer import Settings, Trainer  # noqa: E402
from streamgate.networks.alignment import ARCFACE_TEMPLATE  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BIN = "weights/face-reidentification-retail-0095.bin"
CPU = torch.device("cpu")
WANTED = [0.0315, -0.3033, -0.8055, -0.7707, -0.8159, 0.6788, 0.3832, 0.4497]
"""First values of the embedding, see below."""
SETTINGS = Settings(
    maps=1.0, features=0.5, embedding=1.0, similarity=2.0, pose=0.5, visible=0.5, drop_rate=0.5, coarse_share=0.5,
    middle_share=0.5, steps=8, chain_from=2, chain_full=4, join=6, warmup=1, decay=2, rate=3e-3, weight_decay=0.0,
    ema=0.9,
)  # fmt: skip


def network() -> FaceNetwork:
    torch.manual_seed(3)
    return FaceNetwork(0.0, "squeezed").eval().requires_grad_(False)


def batch(count: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        "face": rng.integers(0, 256, (count, 112, 112, 3), dtype=np.uint8),
        "pose": rng.normal(0, 10, (count, 3)).astype(np.float32),
        "visible": np.linspace(0.3, 1, count, dtype=np.float32),
    }


def test_the_copy_computes_what_openvino_computes() -> None:
    """The wanted values are OpenVINO 2026.4.1's, in float32, for the same planes in the order BGR."""
    backbone, planes = load_published(shared_part(BIN)), Enlarge()
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, SIDE, SIDE)).astype(np.float32))
    with torch.no_grad():
        features = backbone(pixels.flip(1) * planes.scale + planes.shift)
        embedding = backbone.bn(backbone.conv3(features[:, :, None, None])).flatten().numpy()
    assert embedding[:8] == pytest.approx(WANTED, abs=5e-3)


def test_another_or_an_incomplete_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the teacher is missing"):
        load_published(tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes(b"1")
    with pytest.raises(DataError, match=r"a\.xml: the teacher is missing"):
        load_published(tmp_path / "a.bin")
    (tmp_path / "a.xml").write_text("<net/>")
    with pytest.raises(DataError, match="is not face-reidentification-retail-0095"):
        load_published(tmp_path / "a.bin")
    with pytest.raises(DataError, match="give --teacher FILE"):
        load_teacher(None, "squeezed")


@pytest.mark.parametrize("described", ["<net>", "<net/>", "<net><layers><layer type='Const'><data/></layer></layers>"])
def test_a_description_that_is_none_is_refused(tmp_path: Path, described: str) -> None:
    (tmp_path / "a.bin").write_bytes(shared_part(BIN).read_bytes())
    (tmp_path / "a.xml").write_text(described)
    with pytest.raises(DataError, match=r"a\.xml: "):
        load_published(tmp_path / "a.bin")


def test_the_inner_square_is_enlarged_to_where_the_network_expects_the_landmarks() -> None:
    """A ramp keeps its value at a point; the two templates have slightly different proportions."""
    ramp = np.zeros((1, 112, 112, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(112)[None], np.arange(112)[:, None]
    planes = Enlarge()
    shown = ((planes(torch.from_numpy(ramp)) - planes.shift) / planes.scale)[0]
    for (x, y), (column, row) in zip(ARCFACE_TEMPLATE, np.array(POINTS) * SIDE, strict=True):
        found = shown[:2, round(row), round(column)]
        assert float(found[0]) == pytest.approx(x, abs=2.5) and float(found[1]) == pytest.approx(y, abs=2.5)


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_every_shape_is_a_chain_of_units_and_folds(shape: str) -> None:
    torch.manual_seed(1)
    whole = FaceNetwork(0.0, shape).eval().requires_grad_(False)
    planes = whole.planes(torch.from_numpy(batch(2)["face"]))
    wanted = whole.backbone(planes)
    assert torch.allclose(whole.taps(planes).features, wanted)
    assert torch.allclose(Teacher(whole, CPU).maps(planes)[-1], wanted, atol=1e-4)


def test_the_exported_file_gives_256_values_and_the_heads(tmp_path: Path) -> None:
    export_onnx(network(), tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(None, {"face": batch(3)["face"]})
    assert {name: value.shape for name, value in zip(names, found, strict=True)} == {
        "embedding": (3, 256), "spread": (3,), "features": (3, 512), "pose": (3, 3), "visible": (3,),
    }  # fmt: skip


def test_heads_learn_and_the_backbone_stays_the_teachers() -> None:
    teacher = Teacher(network(), CPU)
    trainer = Trainer(dataclasses.replace(SETTINGS, heads_only=True), teacher, 1, CPU, half=False)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    first = trainer.step(batch())
    for _ in range(5):
        last = trainer.step(batch())
    assert last["pose"] < first["pose"]
    for where in (trainer.network, trainer.average):
        for name, value in where.backbone.state_dict().items():
            assert torch.equal(value, before[f"backbone.{name}"]), name
    again = Trainer(dataclasses.replace(SETTINGS, heads_only=True), teacher, 1, CPU, half=False)
    again.load_state(trainer.state())
    assert again.step(batch()) == pytest.approx(trainer.step(batch()), rel=1e-3)


def test_the_shape_also_trains_from_random_weights() -> None:
    trainer = Trainer(SETTINGS, Teacher(network(), CPU), 1, CPU, half=True)
    for _ in range(8):
        figures = trainer.step(batch())
    assert trainer.joined and np.isfinite(list(figures.values())).all()


# --- labels from a file -----------------------------------------------------------------------------------------


def labelled(folder: Path, face: np.ndarray) -> tuple[Path, Path]:
    """A folder of three pictures, and a file of labels for two of them, one of these without a face."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for i in range(3):
        write_rgb(pictures / f"{i}.png", np.roll(face, i, axis=1))
    digests = [hashlib.sha256((pictures / f"{i}.png").read_bytes()).hexdigest() for i in range(2)]
    points = np.stack([ARCFACE_TEMPLATE * 256 / 147 + 30, np.full((5, 2), np.nan)]).astype(np.float32)
    np.savez(folder / "labels.npz", sha256=np.array(digests), points=points, pose=np.zeros((2, 3), np.float32))
    return pictures, folder / "labels.npz"


def test_faces_are_aligned_by_the_labels_alone(tmp_path: Path, face: np.ndarray) -> None:
    pictures, file = labelled(tmp_path, face)
    labels = FileLabels([file], Teacher(network(), CPU))
    faces = prepare([pictures], [], LeaveOut(), tmp_path / "work", labels, 1)
    assert faces.names == ["pictures/0.png"] and faces.counts["without a face"] == 2
    assert faces.faces[0].shape == (144, 144, 3) and faces.embedding.shape == (1, 256)
    assert np.linalg.norm(faces.embedding[0]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "arrays", [{}, {"sha256": np.array(["a"]), "points": np.zeros((1, 4)), "pose": np.zeros((1, 3))}]
)
def test_a_file_that_holds_no_labels_is_named(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "labels.npz", **arrays)
    with pytest.raises(DataError, match=r"labels\.npz: not a file of labels"):
        FileLabels([tmp_path / "labels.npz"], Teacher(network(), CPU))
    with pytest.raises(DataError, match=r"none\.npz: not a file of labels"):
        FileLabels([tmp_path / "none.npz"], Teacher(network(), CPU))


def train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    config = ROOT / "models/open/recognizer/config.toml"
    command = [sys.executable, "-W", "ignore", str(ROOT / "models/recognizer/train.py"), "--config", str(config)]
    environment = {k: v for k, v in os.environ.items() if k != "STREAMGATE_WORK"}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=300
    )


def test_a_smoke_run_leaves_every_deliverable(tmp_path: Path) -> None:
    from models.common.smoke import synthetic_faces

    made = synthetic_faces(tmp_path / "seen")
    files = sorted(file for file in made.rglob("*") if file.is_file())
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    points = np.tile((ARCFACE_TEMPLATE * 256 / 147 + 30)[None], (len(files), 1, 1)).astype(np.float32)
    labels = tmp_path / "labels.npz"
    np.savez(labels, sha256=np.array(digests), points=points, pose=np.zeros((len(files), 3), np.float32))
    given = ["--smoke", "--work", tmp_path, "--threads", "1", "--labels", labels, "--teacher", shared_part(BIN)]
    done = train(*given)
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "smoke/card.json").read_text())
    assert card["name"] == "recognizer-open" and card["research_only"] is False and "eyes" not in card["outputs"]


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    for arguments, line in (
        ([tmp_path, "--work", tmp_path / "work"], "give --teacher FILE"),
        ([tmp_path, "--work", tmp_path / "work", "--teacher", tmp_path / "none.bin"], "the teacher is missing"),
    ):
        done = train(*arguments)
        assert done.returncode == 2
        assert line in done.stderr and len(done.stderr.strip().splitlines()) == 1
