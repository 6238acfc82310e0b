"""Both shapes of IFQA behind one definition, and the ONNX contract of what is exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from streamgate.convert.ifqa import (  # noqa: E402
    OFFICIAL,
    SLIM,
    Ifqa,
    IfqaScorer,
    block_transform,
    count_gmac,
    export_onnx,
    face_ellipse,
    load_checkpoint,
)


@pytest.fixture(scope="module")
def slim() -> Ifqa:
    torch.manual_seed(0)
    return Ifqa(SLIM).eval()


@pytest.fixture(scope="module")
def zeros() -> Ifqa:
    """The official network with every weight zero."""
    network = Ifqa(OFFICIAL).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    return network


def test_the_official_network_has_the_published_size(zeros: Ifqa) -> None:
    state = zeros.state_dict()
    assert len(state) == 122
    assert sum(t.numel() for t in state.values()) == 105_172_833


def test_all_zero_weights_give_exactly_a_half(zeros: Ifqa) -> None:
    with torch.no_grad():
        score, realness = IfqaScorer(zeros, "full")(torch.rand(1, 3, 256, 256) * 2 - 1)
    assert score.tolist() == [0.5]
    assert realness.shape == (1, 256, 256) and (realness == 0.5).all()


def test_an_official_checkpoint_loads_under_its_key(tmp_path: Path) -> None:
    network = Ifqa(SLIM)
    torch.save({"D": {"module." + k: v for k, v in network.state_dict().items()}}, tmp_path / "ifqa.pth")
    loaded = load_checkpoint(tmp_path / "ifqa.pth", SLIM)
    assert torch.equal(loaded.head.weight, network.head.weight)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"D": {"some.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(RuntimeError, match="Missing key"):
        load_checkpoint(tmp_path / "other.pth", SLIM)


def test_the_slim_network_is_slim(slim: Ifqa) -> None:
    assert count_gmac(slim) <= 1.7
    assert sum(p.numel() for p in slim.parameters()) < 4e6


def test_the_block_transform_loses_nothing() -> None:
    basis = block_transform(4)
    assert basis.shape == (48, 48)
    assert np.abs(basis @ basis.T - np.eye(48)).max() < 1e-6
    # A grey block is the first coefficient alone.
    assert np.abs((basis @ np.ones(48, np.float32))[1:]).max() < 1e-5


def test_the_face_ellipse_covers_its_area() -> None:
    assert face_ellipse(64).mean() == pytest.approx(np.pi * 0.27 * 0.345, rel=0.01)
    assert face_ellipse(256)[128 + 19, 128] == 1 and face_ellipse(256)[10, 10] == 0


def test_the_score_is_the_mean_of_the_map_over_the_face(slim: Ifqa) -> None:
    picture = torch.rand(2, 3, 256, 256) * 2 - 1
    with torch.no_grad():
        realness = torch.sigmoid(slim(picture) / SLIM.temperature)[:, 0].numpy()
        score, _ = IfqaScorer(slim)(picture)
    weights = face_ellipse(64)
    assert score.numpy() == pytest.approx((realness * weights).sum((1, 2)) / weights.sum(), abs=1e-6)


@pytest.mark.parametrize("half", [False, True])
def test_the_exported_file_keeps_the_contract(tmp_path: Path, slim: Ifqa, half: bool) -> None:
    path = tmp_path / "ifqa.onnx"
    export_onnx(slim, path, half_storage=half)
    assert [p.name for p in tmp_path.iterdir()] == ["ifqa.onnx"]
    model = onnx.load(path)
    assert [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")] == [17]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["face"]
    assert [o.name for o in session.get_outputs()] == ["score", "map"]
    faces = np.random.default_rng(0).uniform(-1, 1, (3, 3, 256, 256)).astype(np.float32)
    score, realness = session.run(None, {"face": faces})
    assert score.shape == (3,) and score.dtype == np.float32
    assert realness.shape == (3, 256, 256) and realness.dtype == np.float32
    with torch.no_grad():
        wanted_score, wanted_map = IfqaScorer(slim)(torch.from_numpy(faces))
    tolerance = 5e-3 if half else 1e-4
    assert np.abs(score - wanted_score.numpy()).max() < tolerance
    assert np.abs(realness - wanted_map.numpy()).max() < 10 * tolerance
    # A face scores the same alone.
    alone = session.run(["score"], {"face": faces[:1]})[0]
    assert alone == pytest.approx(score[:1], abs=1e-5)


def test_half_storage_halves_the_file(tmp_path: Path, slim: Ifqa) -> None:
    for half in (False, True):
        export_onnx(slim, tmp_path / f"{half}.onnx", half_storage=half)
    assert (tmp_path / "True.onnx").stat().st_size < 0.55 * (tmp_path / "False.onnx").stat().st_size
