"""The benchmark of leaving frames undecoded, as a user runs it, on a clip of a second."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support.benchmark_runs import BENCHMARKS, rows, run_script, section
from support.media import astronaut_frames, plain_frames, write_clip


def test_costs_are_compared_and_what_is_missing_is_named(drifting: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = run_script(
        "decoding.py", drifting, "--models", "embedded", "--visits", "1", "--results", results, models=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    written = section(results, "decoding")
    (row,) = rows(written, "drift")
    assert len(row) == 8 and row[2].startswith("25: ") and row[2].endswith("(1, 1)")
    assert "left out: visits: intel_bottle.mp4, liveportrait_d6.mp4: not in" in written


def test_visitors_come_and_go(tmp_path: Path) -> None:
    stage = write_clip(tmp_path / "stage.mp4", plain_frames(50, (640, 360)))
    visitor = write_clip(tmp_path / "visitor.mp4", astronaut_frames(25, (240, 240)))
    out = tmp_path / "out.mp4"
    command = [sys.executable, str(BENCHMARKS / "visits.py"), str(stage), str(visitor), str(out), "1", "1", "2"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    made = json.loads(ran.stdout)
    assert sorted(stay for _, _, stay in made["visits"]) == [1.0, 2.0] and out.stat().st_size > 0
    assert all(abs(until - start - stay) < 0.01 for start, until, stay in made["visits"])
