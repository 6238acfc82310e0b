"""Leaving frames out, through the front door: the same people, whatever runs beside it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from streamgate import Gate
from streamgate.config import load_config
from streamgate.frames import Frame
from streamgate.runtime.decode_hints import DecodeHints
from streamgate.sources.base import Interest
from support.command import lines, streamgate
from support.media import astronaut_frames, plain_frames, write_clip

SIZE = (480, 360)
WHOLE = ("decoding.discard=none", "decoding.max_skip_s=0")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face for two seconds, nothing for sixteen, the face again for two, nothing for four."""
    face = astronaut_frames(50, SIZE, step=1.0, zoom=1.6)
    frames = [*face, *plain_frames(400, SIZE), *face, *plain_frames(100, SIZE)]
    return write_clip(
        tmp_path_factory.mktemp("clips") / "hall.mp4", frames, options={"g": "50", "bf": "2", "preset": "veryfast"}
    )


def run(clip: Path, out: Path, *settings: str, jobs: int = 1, further: tuple[Path, ...] = ()) -> tuple[list[Any], Any]:
    options = [part for one in settings for part in ("--set", one)]
    done = streamgate("run", clip, *further, "-o", out, "--preset", "archive", "--jobs", str(jobs), *options)
    assert done.code == 0, done.err
    return lines(out / "faces.jsonl"), json.loads((out / "summary.json").read_text())["sources"]


def test_archive_finds_the_same_people_in_a_fraction_of_the_frames(clip: Path, tmp_path: Path) -> None:
    some, (guided,) = run(clip, tmp_path / "archive")
    whole, (complete,) = run(clip, tmp_path / "whole", *WHOLE)
    assert complete["frames"] == complete["frames_decoded"] == 600
    assert guided["frames"] == 600 and guided["frames_decoded"] < 250
    assert (guided["tracks"], guided["kept"], guided["decode_errors"]) == (2, 2, 0)
    assert (complete["tracks"], complete["kept"]) == (2, 2)
    for ours, theirs in zip(some, whole, strict=True):
        assert ours["track"]["first_pts"] == pytest.approx(theirs["track"]["first_pts"], abs=0.6)
        assert ours["track"]["last_pts"] == pytest.approx(theirs["track"]["last_pts"], abs=0.4)
        assert ours["quality"] == pytest.approx(theirs["quality"], abs=3)
        assert ours["frame_index"] == round(25 * ours["pts_seconds"])


def test_results_do_not_depend_on_what_runs_beside_it(clip: Path, tmp_path: Path) -> None:
    second = tmp_path / "other.mp4"
    second.write_bytes(clip.read_bytes() + b"\0")
    runs = [tmp_path / name for name in ("one", "two", "again")]
    for out, jobs in zip(runs, (1, 2, 2), strict=True):
        run(clip, out, jobs=jobs, further=(second,))
    found = [(out / "faces.jsonl").read_bytes() for out in runs]
    assert found[0] == found[1] == found[2] and found[0].count(b"\n") == 4


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face for twenty seconds, with a key frame every two."""
    frames = astronaut_frames(500, SIZE, step=0.1, zoom=1.6)
    return write_clip(
        tmp_path_factory.mktemp("clips") / "talk.mp4", frames, options={"g": "50", "bf": "2", "preset": "veryfast"}
    )


def test_archive_decodes_a_part_of_what_shows_a_known_face(talk: Path, tmp_path: Path) -> None:
    second = tmp_path / "other.mp4"
    second.write_bytes(talk.read_bytes() + b"\0")
    found, sources = run(talk, tmp_path / "one", further=(second,))
    assert [one["frames"] for one in sources] == [500, 500] and sources[0]["frames_decoded"] < 250
    assert sources[0]["tracks"] == sources[0]["kept"] == 1
    track = found[0]["track"]
    assert track["first_pts"] == 0 and track["last_pts"] > 17
    run(talk, tmp_path / "two", jobs=2, further=(second,))
    assert (tmp_path / "one" / "faces.jsonl").read_bytes() == (tmp_path / "two" / "faces.jsonl").read_bytes()


def test_stopping_early_lets_go_of_a_source_that_waits(clip: Path) -> None:
    with Gate("archive") as gate:
        shots = gate.run(clip)
        next(shots)
        shots.close()
    # One that had to be given up would still be waiting.
    assert not [one for one in threading.enumerate() if one.name == "streamgate-decode"]


def test_exhaustive_wants_every_frame(clip: Path, tmp_path: Path) -> None:
    short = write_clip(tmp_path / "short.mp4", plain_frames(150, SIZE), options={"g": "25"})
    _, (source,) = run(short, tmp_path / "out", "exhaustive=true")
    assert source["frames"] == 150


def test_the_word_on_a_frame_is_waited_for() -> None:
    hints = DecodeHints(load_config("archive"), lambda frame: [])
    heard: list[Interest] = []
    asking = threading.Thread(target=lambda: heard.append(hints.interest(2.0)))
    asking.start()
    hints.note(1.0, Interest.EMPTY)
    asking.join(0.2)
    assert asking.is_alive()
    hints.note(2.5, Interest.STEADY)
    asking.join(10)
    assert heard == [Interest.EMPTY]
    assert [hints.interest(time) for time in (0.5, 1.0, 2.4, 2.5)] == [
        Interest.LIVELY, Interest.EMPTY, Interest.EMPTY, Interest.STEADY,
    ]  # fmt: skip
    waiting = threading.Thread(target=lambda: heard.append(hints.interest(9.0)))
    waiting.start()
    hints.close()
    waiting.join(10)
    assert heard[1:] == [Interest.LIVELY]


def test_a_frame_without_a_face_is_looked_at_once() -> None:
    looked: list[float] = []

    def detect(frame: Frame) -> list[Any]:
        looked.append(frame.pts_seconds)
        return []

    hints = DecodeHints(load_config("archive"), detect)
    picture: Any = None
    assert not hints.sees_face(Frame(picture, 3.0))
    assert hints.looked(3.0) == [] and hints.looked(3.04) is None and looked == [3.0]
