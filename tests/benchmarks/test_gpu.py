"""The GPU benchmark, on the CPU: the whole script runs through before a card is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import shared_folder
from support.benchmark_runs import run_script


@pytest.fixture
def faces() -> Path:
    folder = shared_folder() / "faces" / "hq_val"
    if not folder.is_dir():
        pytest.skip(f"real faces are not here ({folder})")
    return folder


def test_it_runs_through_on_the_cpu_and_writes_no_results(drifting: Path, faces: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = run_script(
        "gpu.py", drifting / "drift.mp4", "--device", "cpu", "--faces", faces, "--count", 4, "--seconds", 40,
        "--no-large", "--results", results, models=tmp_path / "nothing",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert not results.exists(), "only a card's figures belong there"
    assert "not run on a card" in ran.stdout and "device: cpu" in ran.stdout
    measured = [line.split("|")[1:-1] for line in ran.stdout.splitlines() if "fp32 |" in line]
    assert measured and all(float(row[2]) > 1 and float(row[-1].split()[0]) <= 1e-3 for row in measured)
    assert "target 1e-03: **met**" in ran.stdout and "left out: large networks" in ran.stdout


def test_without_a_card_it_says_so(drifting: Path, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    results = tmp_path / "RESULTS.md"
    ran = run_script("gpu.py", drifting / "drift.mp4", "--results", results, models=tmp_path / "nothing")
    assert ran.returncode == 6
    assert "'cuda' is not available" in ran.stderr and "Traceback" not in ran.stderr
    assert not results.exists()
