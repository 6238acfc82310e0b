"""The benchmarks of labelled faces, on labels of a clip of a second."""

from __future__ import annotations

import json
from pathlib import Path

from support.benchmark_runs import rows, run_script, section
from support.real_weights import standard_models


def test_picks_are_matched_to_labels(drifting: Path, tmp_path: Path) -> None:
    results, labels = tmp_path / "RESULTS.md", tmp_path / "picks.json"
    faces = [{"pts": n / 25, "box": [170, 56, 262, 176], "label": "g", "why": ""} for n in range(0, 25, 4)]
    labels.write_text(json.dumps({"drift.mp4": {"1": faces}, "absent.mp4": {"1": faces}}))
    arguments = ("--labels", labels, "--only", "default", "wrong", "--config", "wrong", "detection.nonsense=1")
    ran = run_script(
        "picks.py",
        drifting,
        *arguments,
        "--sheets",
        tmp_path / "sheets",
        "--results",
        results,
        models=standard_models(),
    )
    assert ran.returncode == 0, ran.stderr
    text = section(results, "picks")
    assert "7 faces of 1 tracks" in text and "- left out: wrong: " in text
    (default,) = rows(text, "default")
    assert default[1] == "1" and default[2] == "1 (100 %)", default
    assert (tmp_path / "sheets" / "default.png").stat().st_size > 0


def test_faces_judged_one_by_one_are_counted_and_all_have_to_be_judged(tmp_path: Path) -> None:
    out, known, results = tmp_path / "out", tmp_path / "judged.json", tmp_path / "RESULTS.md"
    out.mkdir()
    kept = [{"image": f"a/track_0001/{n}.png", "source_id": "a"} for n in (1, 2)]
    (out / "faces.jsonl").write_text("".join(json.dumps(one) + "\n" for one in kept))
    known.write_text(json.dumps({kept[0]["image"]: ["g", ""], kept[1]["image"]: ["b", "em"]}))
    arguments = ("--judged", f"new={out}={known}", "--results", results)
    ran = run_script("picks.py", *arguments, models=tmp_path)
    assert ran.returncode == 0, ran.stderr
    (row,) = rows(section(results, "judged"), "new")
    assert row[1:] == ["1", "2", "1 (50 %)", "0 (0 %)", "1 (50 %)", "eyes 1, mouth 1"]
    known.write_text("{}")
    ran = run_script("picks.py", *arguments, models=tmp_path)
    assert ran.returncode == 1 and "was not judged (2 in all)" in ran.stderr
