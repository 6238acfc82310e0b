"""The benchmark of many sources, with few."""

from __future__ import annotations

from pathlib import Path

from support.benchmark_runs import rows, run_script, section


def test_every_step_is_measured_for_every_number_of_sources(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = run_script(
        "many.py", "--sources", 3, 6, "--shards", 2, "--work", tmp_path, "--results", results, models=tmp_path / "none"
    )
    assert ran.returncode == 0, ran.stderr
    text = section(results, "many")
    steps = ("listing and committing", "merge |", "merge again", "run --resume", "export to Parquet", "export to Web")
    for step in steps:
        (row,) = rows(text, step)
        assert "s CPU" in row[1] and "s CPU" in row[2] and float(row[4]) > 20, row
    assert text.count("times the CPU time of 3 sources") == 6 and "**met**" in text
    assert list(tmp_path.iterdir()) == [results], "the work is cleared away"
    assert str(tmp_path) not in text
