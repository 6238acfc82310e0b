"""The GPU benchmark, on the CPU: the whole script runs through before a card is there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from conftest import shared_folder
from support.benchmark_runs import rows, run_script


@pytest.fixture
def faces() -> Path:
    folder = shared_folder() / "faces" / "hq_val"
    if not folder.is_dir():
        pytest.skip(f"the real faces are missing ({folder})")
    return folder


def test_it_runs_through_on_the_cpu_and_writes_no_results(drifting: Path, faces: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = run_script(
        "gpu.py", drifting / "drift.mp4", "--device", "cpu", "--faces", faces, "--count", "4", "--seconds", "240",
        "--no-large", "--results", results, models=tmp_path / "nothing",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert not results.exists(), "only a card's figures belong there"
    assert "not run on a GPU" in ran.stdout and "device: cpu" in ran.stdout
    measured = [line.split("|")[1:-1] for line in ran.stdout.splitlines() if "fp32 |" in line]
    assert measured and all(float(row[2]) > 1 and float(row[-1].split()[0]) <= 1e-3 for row in measured)
    assert "target at most 1e-03: **met**" in ran.stdout and "target the same: **met**" in ran.stdout
    # Every row of whole runs has frames, those of exhaustive ones too.
    whole = rows(ran.stdout, "embedded")
    assert [(row[0], row[1]) for row in whole] == [
        ("embedded", "16"), ("embedded", "4"), ("embedded", "1"), ("embedded, exhaustive", "16"),
    ]  # fmt: skip
    assert all(float(row[4].replace(",", "")) > 0 for row in whole), whole
    assert ran.stdout.rstrip().endswith("- left out: large networks (--no-large)")


PARTS = """
import os, time

def fine(clock):
    yield 1
    clock.left_out.append("a bit")
    yield 2

def dying(clock):
    yield 1
    os._exit(3)

def hanging(clock):
    yield 1
    time.sleep(600)

def raising(clock):
    yield 1
    raise ValueError("no such thing")
"""


def test_a_part_that_fails_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may crash in a driver, hang there, or raise an error: what it found before stays, and all else goes on."""
    from gpu_parts import Clock, results_of

    (tmp_path / "parts_of_a_test.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    parts = importlib.import_module("parts_of_a_test")
    clock = Clock.of(300)
    found = {
        name: list(results_of(name, getattr(parts, name), seconds, clock))
        for name, seconds in (("dying", 60), ("hanging", 10), ("raising", 60), ("fine", 60))
    }
    assert found == {"dying": [1], "hanging": [1], "raising": [1], "fine": [1, 2]}
    assert clock.left_out == [
        "dying (failed: its process ended with 3)",
        "hanging (failed: no end within 10 s)",
        "raising (failed: no such thing)",
        "a bit",
    ]
    none = Clock.of(1)
    assert list(results_of("late", parts.fine, 60, none)) == [] and none.left_out == ["late (no time)"]


def test_without_a_card_it_says_so(drifting: Path, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    results = tmp_path / "RESULTS.md"
    ran = run_script("gpu.py", drifting / "drift.mp4", "--results", results, models=tmp_path / "nothing")
    assert ran.returncode == 6
    assert "'cuda' is not available" in ran.stderr and "Traceback" not in ran.stderr
    assert not results.exists()
