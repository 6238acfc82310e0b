"""Pictures beyond the limit wait on disk."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from streamgate.errors import SinkError
from streamgate.scoring.pictures import PictureStore


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (10, 10, 3), np.uint8)


def test_what_goes_beyond_the_limit_is_the_same_picture_from_disk() -> None:
    store = PictureStore(700)
    kept = [store.keep(picture(seed)) for seed in range(5)]
    assert store.held_bytes == 600, "two in memory, three on disk"
    for seed, one in enumerate(kept):
        assert np.array_equal(one, picture(seed)) and one.dtype == np.uint8


def test_a_picture_counts_until_nobody_holds_it() -> None:
    store = PictureStore(300)
    first = store.keep(picture(0))
    assert store.held_bytes == 300
    del first
    gc.collect()
    assert store.held_bytes == 0


def test_a_full_disk_is_an_error_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(SinkError, match="TMPDIR"):
        PictureStore(0).keep(picture(0))
