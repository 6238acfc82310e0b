"""The benchmarks of accuracy and scale as a user runs them, on a clip of a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.benchmark_runs import rows, run_script, section
from support.real_weights import standard_models


def test_bestshot_finds_no_regret_where_all_faces_are_alike_and_keeps_its_results(
    drifting: Path, tmp_path: Path
) -> None:
    results, work = tmp_path / "RESULTS.md", tmp_path / "work"
    arguments = [
        drifting, "--clips", "drift", "absent", "--work", work, "--results", results,
        "--config", "rare", "advanced.dense_interval_s=0.4", "--config", "wrong", "detection.nonsense=1",
    ]  # fmt: skip
    ran = run_script("bestshot.py", *arguments, models=standard_models())
    assert ran.returncode == 0, ran.stderr
    text = section(results, "bestshot")
    assert "- left out: absent: not in videos" in text
    assert "- left out: wrong: " in text and "nonsense" in text
    (clip,) = rows(text, "drift ")
    assert clip[1] == "1, 1" and clip[3] == "1", clip
    # All alike: which one is picked is chance, and so is its percentile; only the regret says something.
    assert float(clip[4]) <= 4.0 and 0 < float(clip[8]) <= 100, clip
    (default,), (rare,), (exhaustive,) = (rows(text, name) for name in ("**default**", "rare ", "exhaustive "))
    assert float(exhaustive[3]) > float(default[3]) > float(rare[3]) > 0, "runs of the detector a second"
    assert float(exhaustive[1]) > float(default[1])
    assert "track recall" in text and "**met**" in text
    assert str(tmp_path) not in text
    kept = {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    assert len(kept) == 3, kept

    again = run_script("bestshot.py", drifting, "--work", work, "--results", results, models=standard_models())
    assert again.returncode == 0, again.stderr
    assert kept == {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    assert "2 results were reused from earlier runs" in section(results, "bestshot")


@pytest.mark.parametrize("name", ["bestshot.py", "scale.py"])
def test_without_weights_nothing_is_measured_and_the_reason_is_named(name: str, drifting: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = run_script(
        name, drifting, "--models", tmp_path / "nothing", "--results", results, models=tmp_path / "nothing"
    )
    assert ran.returncode == 1, ran.stderr
    assert "left out: nothing was measured" in results.read_text()
    assert "Traceback" not in ran.stderr


def test_scale_goes_through_all_questions(drifting: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = run_script("scale.py", drifting, "--quick", "--results", results, models=standard_models())
    assert ran.returncode == 0, ran.stderr
    text = section(results, "scale")
    for title in ("Length", "Faces per frame", "Frame size", "Files at once"):
        part = text.partition(f"### {title}")[2].partition("###")[0]
        measured = [row for row in rows(part, "") if row[0].replace(".", "").isdigit()]
        assert len(measured) == 2 and all(float(row[2]) > 0 for row in measured), part
    assert "fsgan_conan: not in videos0; drift takes its place" in text
    assert "This is no measurement" in text
