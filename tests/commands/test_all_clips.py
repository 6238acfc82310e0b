"""All real clips in one run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import pytest

from support.command import lines
from support.hostile import run_limited
from support.real_weights import standard_models


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure memory")
def test_all_clips_in_one_run(shared_videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_limited(
        ["run", shared_videos, "-o", out], {"STREAMGATE_MODELS": str(standard_models())}, limit_s=600
    )
    assert done.code == 0, done.err
    assert 100 < done.peak_mib < 700

    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["sources"]) == len([path for path in shared_videos.iterdir() if path.suffix != ".md"])
    assert all(source["status"] == "done" and source["frames"] > 0 for source in summary["sources"])

    records = lines(out / "faces.jsonl")
    kept = Counter(Path(record["source"]).name for record in records)
    assert kept["intel_bottle.mp4"] == kept["moviepy_bbb.webm"] == 0
    assert kept["fsgan_conan.mp4"] == kept["liveportrait_s18.mp4"] == kept["liveportrait_d6.mp4"] == 1
    for record in records:
        assert cv2.imread(str(out / record["image"])).shape == (512, 512, 3)
        assert abs(record["pose"]["yaw"]) <= 25 and abs(record["pose"]["pitch"]) <= 25
