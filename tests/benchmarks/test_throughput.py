"""The throughput benchmark as a user runs it, on a clip of a second."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.media import astronaut_frames, write_clip
from support.real_weights import standard_models

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def _run(videos: Path, results: Path, *arguments: str, models: str | Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, str(BENCHMARKS / "throughput.py"), str(videos), "--seconds", "2", "--rounds", "1",
        "--results", str(results), *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "STREAMGATE_MODELS": str(models)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_clip(folder / "drift.mp4", astronaut_frames(25))
    return folder


def test_section_is_written_between_what_else_stands_in_the_file(videos: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text(
        "# Results\n\n<!-- throughput:begin -->\nold\n<!-- throughput:end -->\n\n"
        "<!-- other:begin -->\nkept\n<!-- other:end -->\n"
    )
    page = tmp_path / "performance.md"
    page.write_text("Before.\n\n<!-- throughput:begin -->\nold\n<!-- throughput:end -->\n\nAfter.\n")
    everything = ("--all", "--plain-seconds", "0.2", "0.04", "--page", str(page))
    ran = _run(videos, results, *everything, "--clips", "drift", "absent", models=standard_models())
    assert ran.returncode == 0, ran.stderr
    text = results.read_text()
    section = text.partition("<!-- throughput:begin -->")[2].partition("<!-- throughput:end -->")[0]
    row, stages, plain = [line for line in section.splitlines() if line.startswith("| drift |")]
    columns = [column.strip() for column in row.strip("|").split("|")]
    assert columns[1:4] == ["320x240", "2.0", "copy"]
    assert float(columns[6]) > 0 and int(columns[-2]) > 0, row
    assert "absent: not in videos" in section
    assert "### archive" in section and "target at most 40 for the median: **" in section
    decoding, *networks, rest, together = [float(cell) for cell in stages.strip("|").split("|")[1:]]
    assert len(networks) >= 4 and min(networks) >= 0 and max(networks) > 0, stages
    assert abs(decoding + sum(networks) + rest - together) < 0.5, stages
    cells = [cell.strip() for cell in plain.strip("|").split("|")]
    assert cells[2] == "0.2" and float(cells[3]) >= 1 and float(cells[7]) > 0, plain
    assert "target at least 20 for the median: **" in section
    assert "wall time of the plain loop with official IFQA" in section
    assert "old" not in text and "<!-- other:begin -->\nkept\n<!-- other:end -->" in text
    assert str(tmp_path) not in text
    lines = page.read_text().splitlines()
    assert lines[0] == "Before." and lines[-1] == "After." and "old" not in lines
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    values = {cells[0]: cells[1:] for cells in table}
    beyond = values["clips below 720p or without faces: CPU time beyond decoding, core-ms per second of video"]
    assert values["value"] == ["`studio`", "`archive`"] and abs(float(beyond[0]) - float(columns[10])) <= 1, values
    assert next(cells for what, cells in values.items() if what.startswith("720p")) == ["-", "-"]


def test_without_weights_decoding_is_measured_and_the_reason_named(videos: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = _run(videos, results, "--models", str(tmp_path / "nothing"), models=tmp_path / "nothing")
    assert ran.returncode == 0, ran.stderr
    text = results.read_text()
    assert "only decoding was measured" in text
    assert "| drift |" in text


def test_a_folder_without_clips_fails_and_says_so(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = _run(tmp_path / "none", results, models=tmp_path)
    assert ran.returncode == 1
    assert "no clips: none is missing" in results.read_text()


@pytest.mark.parametrize("content", [None, "# Performance\n"])
def test_a_page_without_the_table_is_refused_before_anything_is_measured(
    videos: Path, tmp_path: Path, content: str | None
) -> None:
    results, page = tmp_path / "RESULTS.md", tmp_path / "page.md"
    if content is not None:
        page.write_text(content)
    ran = _run(videos, results, "--page", str(page), models=tmp_path)
    assert ran.returncode == 2 and "has no table to replace" in ran.stderr and "Traceback" not in ran.stderr
    assert not results.exists() and page.exists() == (content is not None)
