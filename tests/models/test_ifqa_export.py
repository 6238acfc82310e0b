"""The slim IFQA network as its recipe exports it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from models.ifqa.deploy import count_gmac, export_onnx  # noqa: E402
from streamgate.convert.ifqa import SLIM, SMALL, Ifqa, IfqaScorer  # noqa: E402


@pytest.fixture(scope="module")
def slim() -> Ifqa:
    torch.manual_seed(0)
    return Ifqa(SLIM).eval()


def test_the_slim_network_is_slim(slim: Ifqa) -> None:
    assert count_gmac(slim) <= 1.7
    assert sum(p.numel() for p in slim.parameters()) < 4e6


def test_the_small_network_costs_a_quarter_of_it(slim: Ifqa) -> None:
    assert count_gmac(Ifqa(SMALL)) < 0.3 * count_gmac(slim)


def test_the_exported_file_keeps_the_contract(tmp_path: Path, slim: Ifqa) -> None:
    path = tmp_path / "ifqa.onnx"
    export_onnx(slim, path)
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
    assert np.abs(score - wanted_score.numpy()).max() < 5e-3
    assert np.abs(realness - wanted_map.numpy()).max() < 5e-2
    # A face scores the same alone.
    alone = session.run(["score"], {"face": faces[:1]})[0]
    assert alone == pytest.approx(score[:1], abs=1e-5)


def test_half_storage_halves_the_file(tmp_path: Path, slim: Ifqa) -> None:
    export_onnx(slim, tmp_path / "ifqa.onnx")
    full = 4 * sum(parameter.numel() for parameter in slim.parameters())
    assert (tmp_path / "ifqa.onnx").stat().st_size < 0.55 * full
