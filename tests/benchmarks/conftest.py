"""Benchmarks are scripts: their helpers are imported from their folder, behind everything else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.benchmark_runs import BENCHMARKS
from support.media import astronaut_frames, write_clip

sys.path.append(str(BENCHMARKS))


@pytest.fixture(scope="session")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one clip of a second, `drift`: a face that moves a little."""
    folder = tmp_path_factory.mktemp("videos")
    write_clip(folder / "drift.mp4", astronaut_frames(25, (320, 240), zoom=1.6))
    return folder
