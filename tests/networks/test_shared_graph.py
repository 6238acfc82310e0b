"""One graph that fills two roles and gives further figures (design.md 2), made from untrained weights of our own."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from models.recognizer.architecture import EyesHead, FaceNetwork, export_onnx  # noqa: E402
from streamgate.config import load_config  # noqa: E402
from streamgate.engine import Engine  # noqa: E402
from streamgate.errors import WeightsError  # noqa: E402
from streamgate.faces import Status  # noqa: E402
from streamgate.networks import Networks  # noqa: E402
from streamgate.networks.alignment import arcface_matrix  # noqa: E402
from streamgate.networks.pose import head_poses, takes_aligned, upright  # noqa: E402
from streamgate.weights.store import embedded_folder, from_card  # noqa: E402
from support.media import astronaut  # noqa: E402
from support.real_weights import read_rgb, shared_part, standard_models  # noqa: E402

CARD = {
    "roles": ["recognizer", "pose"],
    "licence": "none",
    "calibration": {"calibration_id": "s", "drop_rate": 0.5, "alpha": 50, "r": 0.6},
    "measures": {
        "occlusion": {"calibration_id": "o", "x0": 0.5, "w": 0.1},
        "eyes": {"calibration_id": "e", "x0": 0.5, "w": 0.1},
    },
}


def put_weights(folder: Path, eyes: EyesHead | None, **changes: object) -> Path:
    """A models folder with an untrained graph; which lacks a detector."""
    torch.manual_seed(0)
    inner = folder / "untrained"
    inner.mkdir()
    export_onnx(FaceNetwork(0.5), inner / "a.onnx", eyes)
    digest = hashlib.sha256((inner / "a.onnx").read_bytes()).hexdigest()
    (inner / "card.json").write_text(json.dumps(CARD | {"sha256": digest} | changes))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMGATE_MODELS", str(standard_models()))
        yield put_weights(tmp_path_factory.mktemp("models"), EyesHead())


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return read_rgb(sorted(shared_part("faces/hq_val").iterdir())[0])


def test_one_run_fills_both_roles_and_every_measure(folder: Path, face: np.ndarray) -> None:
    with Networks.open(f"{folder},embedded", "cpu") as networks:
        assert networks.shared_pose and takes_aligned(networks.pose)
        crop = np.ascontiguousarray(face[72:184, 72:184])[None]
        row = networks.recognizer.run(crop).row(0)
        assert row.pose is not None and head_poses(networks.pose, crop)[0] == pytest.approx(row.pose)
    with Engine(load_config(), models=f"{folder},embedded", device="cpu") as engine:
        assert engine.run_info().absent_measures == {}
        (scored,) = engine.score(face)
    assert {name for name, one in scored.measures.items() if one.status is Status.OK} == set(scored.measures)
    assert scored.pose is not None and scored.measures["yaw"].raw == scored.pose.yaw


def test_an_arcface_crop_has_a_pose_where_its_network_takes_one(folder: Path, face: np.ndarray) -> None:
    crop = np.ascontiguousarray(face[72:184, 72:184])
    with Engine(load_config(), models=f"{folder},embedded", device="cpu") as engine:
        (own,) = engine.score(crop, aligned="arcface")
    with Engine(load_config(), models="standard", device="cpu") as engine:
        (standard,) = engine.score(crop, aligned="arcface")
    # An ArcFace crop has no chin: what covers a face is not to be told.
    assert own.pose is not None and own.measures["occlusion"].status is Status.NOT_SCORED
    assert standard.pose is None and standard.measures["occlusion"].status is Status.NO_WEIGHTS


def test_what_a_card_does_not_calibrate_is_absent(tmp_path: Path) -> None:
    models = put_weights(tmp_path, None, calibration=None)
    with Engine(load_config(), models=f"{models},embedded", device="cpu") as engine:
        assert engine.run_info().absent_measures == {"serfiq": Status.UNCALIBRATED}


def test_without_the_output_that_tells_covers_the_measure_is_absent_and_the_others_are_there(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    shutil.copytree(embedded_folder() / "expression", tmp_path / "expression")
    graph, card = tmp_path / "expression/expression.onnx", tmp_path / "expression/card.json"
    model = onnx.load(graph)
    (visible,) = [output for output in model.graph.output if output.name == "visible"]
    model.graph.output.remove(visible)
    onnx.save(model, graph)
    digest = hashlib.sha256(graph.read_bytes()).hexdigest()
    card.write_text(json.dumps(json.loads(card.read_text()) | {"sha256": digest}))
    with Engine(load_config(), models=f"{tmp_path},embedded", device="cpu") as engine:
        assert engine.run_info().absent_measures == {"occlusion": Status.NO_WEIGHTS}
        (scored,) = engine.score(astronaut())
    assert scored.measures["eyes"].status is Status.OK and scored.quality is not None


def test_a_measure_calibrated_like_serfiq_is_refused(tmp_path: Path) -> None:
    put_weights(tmp_path, None, measures={"eyes": CARD["calibration"]})
    with pytest.raises(WeightsError, match="calibration of eyes must give x0 and w"):
        from_card(tmp_path / "untrained", "embedded")


@pytest.mark.parametrize("roll", [-40.0, 0.0, 25.0])
def test_the_angle_of_alignment_is_taken_out_of_the_roll(roll: float) -> None:
    """A head that tilts by `roll` is turned back by alignment: its aligned picture shows none of it."""
    angle = math.radians(roll)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    upright_face = np.array([[38.3, 51.6], [73.5, 51.6], [56, 71.7], [41.5, 92.3], [70.7, 92.3]])
    matrix = arcface_matrix(upright_face @ turn.T * 2.5 + 40)
    assert upright(np.array([3.0, 4.0, 0.0]), matrix) == pytest.approx([3, 4, roll], abs=0.5)
