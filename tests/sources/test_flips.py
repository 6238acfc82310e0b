"""Decoding goes on through random damage, and says how much there was. All 200 copies: benchmarks/reliability.py."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from streamgate.errors import SourceError
from streamgate.sources import open_source
from support.hostile_flips import SMALL_CLIPS, flipped

COPIES = 4


@pytest.mark.parametrize("name", SMALL_CLIPS)
def test_random_bytes_cost_frames_and_no_more(name: str, shared_clip: Callable[[str], Path], tmp_path: Path) -> None:
    clip = shared_clip(name)
    with open_source(clip) as source:
        whole = sum(1 for _ in source.frames())
    damaged = read = 0
    for seed in range(COPIES):
        path = tmp_path / f"{seed}{clip.suffix}"
        path.write_bytes(flipped(clip.read_bytes(), seed))
        try:
            with open_source(path) as source:
                times = [frame.pts_seconds for frame in source.frames()]
                damaged += source.stats.decode_errors > 0
        except SourceError as error:
            assert "\n" not in str(error)
            continue
        read += 1
        assert all(later > earlier for earlier, later in pairwise(times))
        assert 0.5 * whole < len(times) <= 1.5 * whole
    assert read >= COPIES - 1
    # A GIF has nothing by which damage could be told.
    assert damaged >= COPIES - 1 or clip.suffix == ".gif"
