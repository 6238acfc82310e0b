"""The GPU benchmark, on the CPU: the whole script runs through before a card is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark_runs import rows, run_script, section
from conftest import shared_folder


@pytest.fixture
def faces() -> Path:
    folder = shared_folder() / "faces" / "hq_val"
    if not folder.is_dir():
        pytest.skip(f"real faces are not here ({folder})")
    return folder


def test_it_runs_through_on_the_cpu(drifting: Path, faces: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = run_script(
        "gpu.py", drifting / "drift.mp4", "--device", "cpu", "--faces", faces, "--results", results,
        models=tmp_path / "nothing",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    text = section(results, "gpu")
    assert "not run on a card" in text and "device: cpu (as requested)" in text
    networks = {row[0]: row[1:] for row in rows(text, "") if row[0] not in ("network", "---")}
    assert set(networks) >= {"detector", "recognizer, pose", "ifqa"}
    for values in networks.values():
        assert all(float(rate) > 1 for rate in values[:4])
        assert values[4].startswith("0.0e+00"), "the same rows on the same device"
    assert "kept faces 1 and 1, the same ones" in text


def test_without_a_card_it_says_so(drifting: Path, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    results = tmp_path / "RESULTS.md"
    ran = run_script("gpu.py", drifting / "drift.mp4", "--results", results, models=tmp_path / "nothing")
    assert ran.returncode == 6
    assert "'cuda' is not available" in ran.stderr and "Traceback" not in ran.stderr
    assert not results.exists()
