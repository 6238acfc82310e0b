"""Interlaced material that calls itself progressive is seen by its combs; what is progressive is left alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.sources import open_source
from streamgate.sources.combing import combed
from streamgate.sources.live import LiveConnection, LiveError
from support.media import astronaut_frames, plain_frames, write_clip

SIZE = (640, 480)


def woven(frames: Sequence[np.ndarray], first: int = 0) -> list[np.ndarray]:
    """Each two moments in one picture; `first` is the field of the earlier one."""
    pictures = []
    for earlier, later in zip(frames[::2], frames[1::2], strict=False):
        picture = earlier.copy()
        picture[1 - first :: 2] = later[1 - first :: 2]
        pictures.append(picture)
    return pictures


def share(luma: np.ndarray) -> float:
    return float(combed(luma).mean())


def test_combs_are_told_from_texture_and_noise() -> None:
    moving = astronaut_frames(2, SIZE, step=6.0)
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (*moving, *woven(moving))]
    noise = np.random.default_rng(0).normal(0, 12, (480, 640))
    noisy = np.clip(gray[0] + noise, 0, 255).astype(np.uint8)
    dithered = np.where(np.indices((480, 640)).sum(0) % 2, 100, 160).astype(np.uint8)
    assert share(gray[2]) > 0.02
    assert max(share(gray[0]), share(gray[1]), share(noisy), share(dithered)) < 1e-4


@pytest.mark.parametrize("first", [0, 1])
def test_unflagged_interlaced_material_is_deinterlaced(tmp_path: Path, first: int) -> None:
    moving = astronaut_frames(60, SIZE, step=4.0)
    path = write_clip(tmp_path / "tv.mp4", woven(moving, first), options={"crf": "8"})
    with av.open(str(path)) as container:
        assert not any(frame.interlaced_frame for frame in container.decode(video=0))
    with open_source(path) as source:
        shown = [(frame.pts_seconds, frame.frame_index, frame.luma()) for frame in source.frames()]
        assert source.stats.combed > 20 and source.stats.pts_estimated == 0
    assert [(time, index) for time, index, _ in shown] == [(i / 25, i) for i in range(30)]
    assert all(share(luma) < 1e-4 for *_, luma in shown[8:])
    # A picture of one moment, not a blend.
    wanted = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in moving]
    for position in range(10, 28):
        luma = shown[position][2].astype(int)
        assert min(np.abs(luma - wanted[2 * position + field]).mean() for field in (0, 1)) < 3


def test_progressive_material_is_not_touched(tmp_path: Path) -> None:
    frames = astronaut_frames(40, SIZE, step=5.0) + plain_frames(5, SIZE) + astronaut_frames(20, SIZE, zoom=1.6)
    path = write_clip(tmp_path / "film.mp4", frames)
    with av.open(str(path)) as container:
        wanted = [frame.to_ndarray()[: SIZE[1]] for frame in container.decode(video=0)]
    with open_source(path) as source:
        for frame, luma in zip(source.frames(), wanted, strict=True):
            full = np.clip((luma.astype(float) - 16) * 255 / 219, 0, 255)
            assert np.abs(frame.luma() - full).max() <= 1
        assert source.stats.combed == 0


def test_a_pattern_of_lines_that_stands_still_is_no_comb(tmp_path: Path) -> None:
    frames = astronaut_frames(30, SIZE, step=2.0)
    for frame in frames:
        frame[100:300:2, 400:600] = 20
        frame[101:300:2, 400:600] = 220
    path = write_clip(tmp_path / "blinds.mp4", frames, options={"crf": "8"})
    with open_source(path) as source:
        shown = [share(frame.luma()) for frame in source.frames()]
        assert min(shown) > 0.01 and source.stats.combed == 0


def test_it_is_over_when_the_combs_are(tmp_path: Path) -> None:
    frames = woven(astronaut_frames(30, SIZE, step=4.0)) + astronaut_frames(30, SIZE, step=3.0) * 15
    path = write_clip(tmp_path / "joined.mp4", frames, options={"crf": "12"})
    with open_source(path) as source:
        assert sum(1 for _ in source.frames()) == 465
        assert 300 < source.stats.combed < 420


def test_a_live_stream_is_watched_too(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "tv.mp4", woven(astronaut_frames(60, SIZE, step=4.0)), options={"crf": "8"})
    shares = []
    with LiveConnection(f"file://{path}", load_config("live").live) as connection, pytest.raises(LiveError):
        for frame, _ in connection.frames():
            shares.append(share(frame.luma()))
    assert len(shares) > 25 and max(shares[8:]) < 1e-4


def test_case_combed_and_not_flagged(shared_case: Callable[[str], Path]) -> None:
    with open_source(shared_case("combed_unflagged.mp4")) as source:
        shares = [share(frame.luma()) for frame in source.frames()]
        assert source.stats.combed > 170
    assert max(shares[5:]) < 1e-4
