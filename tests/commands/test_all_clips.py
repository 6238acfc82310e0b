"""All real clips in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import pytest

from command import lines
from real_weights import standard_models

# The peak of this process alone: ru_maxrss of a child starts from its parent's.
RUN_AND_TELL_PEAK = """
import atexit, sys
from streamgate.cli import main

def tell():
    status = open("/proc/self/status").read().split()
    open(sys.argv.pop(), "w").write(status[status.index("VmHWM:") + 1])

atexit.register(tell)
sys.argv[0] = "streamgate"
peak, *sys.argv[1:] = sys.argv[1:]
atexit.register(lambda: sys.argv.append(peak))
main()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure memory")
def test_all_clips_in_one_process(shared_videos: Path, tmp_path: Path) -> None:
    out, peak = tmp_path / "out", tmp_path / "peak"
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_TELL_PEAK, peak, "run", shared_videos, "-o", out],
        capture_output=True, text=True, timeout=600, env=os.environ | {"STREAMGATE_MODELS": str(standard_models())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(peak.read_text()) < 700 * 1024

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
