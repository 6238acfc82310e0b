"""Footage that lies on its side without saying so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self, cast

import av
import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.engine import Engine
from streamgate.frames import Array
from streamgate.sinks.base import Sink
from streamgate.sources import open_source
from streamgate.store.run import SourceInfo, SourceResult
from streamgate.tracks import BestShot, Candidate, TrackEnd
from support.media import astronaut_frames, plain_frames, write_clip

SIZE = (480, 320)
Run = Callable[..., tuple[SourceResult, list[BestShot]]]


def upright(count: int) -> list[Array]:
    return astronaut_frames(count, SIZE, step=0.5, zoom=1.2)


def turned(frames: Sequence[Array], quarters: int) -> list[Array]:
    """Frames turned clockwise, of the size that they had: what is not covered is grey."""
    made = []
    for frame in frames:
        whole = np.full((SIZE[0], SIZE[0], 3), 90, np.uint8)
        top = (SIZE[0] - SIZE[1]) // 2
        whole[top : top + SIZE[1]] = frame
        made.append(np.rot90(whole, -quarters)[top : top + SIZE[1]])
    return made


class Collected:
    """A sink that keeps the ended tracks of one source."""

    def __init__(self) -> None:
        self.ends: list[TrackEnd] = []
        self.evaluated = list[Candidate]().append
        self.track = self.ends.append

    def open_source(self, source: SourceInfo) -> Self:
        return self

    def commit(self, result: SourceResult) -> None:
        """Nothing to do."""

    def discard(self) -> None:
        self.ends.clear()

    @property
    def shots(self) -> list[BestShot]:
        return [shot for ended in self.ends for shot in ended.shots]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs frames as a video through a gate; gives the result and the kept faces."""
    engines = {"studio": Engine(load_config()), "archive": Engine(load_config("archive"))}

    def once(frames: Sequence[Array], folder: Path, preset: str = "studio") -> tuple[SourceResult, list[BestShot]]:
        clip, sink = write_clip(folder / "clip.mp4", frames, fps=20), Collected()
        (result,) = engines[preset].run([partial(open_source, clip)], cast(Sink, sink))
        assert result.status == "done", result.error
        return result, sink.shots

    yield once
    for engine in engines.values():
        engine.close()


@pytest.mark.parametrize("quarters", [1, 3])
@pytest.mark.parametrize("preset", ["studio", "archive"])
def test_it_is_turned_and_read_from_its_start(quarters: int, preset: str, run: Run, tmp_path: Path) -> None:
    frames = upright(70)
    reference, (best,) = run(frames, tmp_path, preset)
    source, (shot,) = run([np.rot90(frame, -quarters) for frame in frames], tmp_path, preset)
    assert source.turned == 360 - 90 * quarters and reference.turned == 0
    assert any("sideways but has no rotation metadata" in note for note in source.notes) and reference.notes == []
    assert (source.width, source.height, source.frames) == (*SIZE, 70)
    assert source.tracks == reference.tracks == 1 and shot.track.first_pts == 0.0
    assert np.abs(shot.face.box - best.face.box).max() < 40


def test_an_upright_face_in_the_first_seconds_leaves_it_as_it_is(run: Run, tmp_path: Path) -> None:
    source, _ = run([*turned(upright(44), 1), *upright(40)], tmp_path)
    assert source.turned == 0 and source.notes == []


def test_faces_on_either_side_leave_it_as_it_is(run: Run, tmp_path: Path) -> None:
    frames = upright(60)
    source, _ = run([*turned(frames[:30], 1), *turned(frames[30:], 3)], tmp_path)
    assert source.turned == 0


def test_two_frames_are_too_few(run: Run, tmp_path: Path) -> None:
    source, _ = run([*turned(upright(10), 1), *plain_frames(60, SIZE)], tmp_path)
    assert source.turned == 0


def test_later_than_the_first_seconds_nothing_is_turned(run: Run, tmp_path: Path) -> None:
    source, _ = run([*plain_frames(62, SIZE), *turned(upright(60), 1)], tmp_path)
    assert source.turned == 0


@pytest.mark.parametrize("quarters", [0, 2])
def test_only_a_quarter_turn_counts(quarters: int, run: Run, tmp_path: Path) -> None:
    source, _ = run(turned(upright(64), quarters), tmp_path)
    assert source.turned == 0


def test_faces_found_before_it_is_clear_are_not_lost(run: Run, tmp_path: Path) -> None:
    """A weak face, gone before it is clear that the source is not on its side, is given out all the same."""
    faint = [np.uint8(frame * 0.12 + 100) for frame in upright(16)]
    source, _ = run([*faint, *plain_frames(80, SIZE)], tmp_path)
    assert source.turned == 0 and source.tracks == 1


def test_it_can_be_left_as_it_is_and_pictures_are(tmp_path: Path) -> None:
    frames = turned(upright(64), 1)
    clip, folder = write_clip(tmp_path / "clip.mp4", frames, fps=20), tmp_path / "pictures"
    folder.mkdir()
    for index, rgb in enumerate(frames[::10]):
        av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").save(str(folder / f"{index}.png"))
    with Engine(load_config(settings=["detection.sideways=false"])) as engine:
        (left,) = engine.run([partial(open_source, clip)], cast(Sink, Collected()))
    with Engine(load_config()) as engine:
        found = [
            engine.run([partial(open_source, folder, sequence_fps=fps)], cast(Sink, Collected()))[0]
            for fps in (None, 4.0)
        ]
    assert [one.turned for one in (left, *found)] == [0, 0, 0]
