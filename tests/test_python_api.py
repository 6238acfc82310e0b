"""What Python and notebooks are given besides `Gate.run`: faces that show themselves, own frames, persons, words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import streamgate
from streamgate import BestShot, Gate, ProgressUpdate, SourceError, StreamgateError, UsageError
from support.media import astronaut, astronaut_frames, write_clip

FRAMES = astronaut_frames(30, (640, 480), step=0.5, zoom=1.6)


@pytest.fixture(scope="module")
def gate():
    with Gate(models="embedded", device="cpu", settings={"measures.yaw.max": 25, "keep.expression": "any"}) as opened:
        yield opened


@pytest.fixture(scope="module")
def fed(gate: Gate) -> BestShot:
    (shot,) = gate.feed(((index / 25, frame) for index, frame in enumerate(FRAMES)), name="mine")
    return shot


def test_settings_may_be_a_dict() -> None:
    with Gate(models="embedded", device="cpu", settings={"measures.size.min": 2000}) as gate:
        (face,) = gate.score(astronaut())
    assert face.gate.reasons == ("small",)


def test_all_that_the_gate_gives_and_raises_is_exported() -> None:
    for name in streamgate.__all__:
        assert getattr(streamgate, name).__doc__, name
    for method in (Gate.run, Gate.tracks, Gate.feed, Gate.people, Gate.score):
        assert method.__doc__ and "return" in method.__annotations__, method


def test_own_frames_give_what_a_video_of_them_gives(gate: Gate, fed: BestShot, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", FRAMES, options={"crf": "4"})
    heard: list[ProgressUpdate] = []
    (shot,) = gate.run(clip, progress=heard.append)
    assert fed.source == "mine" and abs(fed.quality - shot.quality) < 6 and 0 <= fed.pts_seconds < 1.2
    assert heard and heard[0].source == str(clip) and heard[0].frames >= 1
    (again,) = gate.feed(FRAMES, fps=25)
    assert again.pts_seconds == fed.pts_seconds and np.array_equal(again.image, fed.image)


def test_a_shot_shows_itself(fed: BestShot, tmp_path: Path) -> None:
    assert repr(fed).startswith("<BestShot mine track 1 at") and len(repr(fed)) < 120
    picture = cv2.imdecode(np.frombuffer(fed._repr_png_() or b"", np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (192, 192, 3)
    assert "<img" in fed._repr_html_() and "sharpness" in fed._repr_html_()
    record = json.loads(json.dumps(fed.to_dict()))
    assert record["quality"] == fed.quality and record["measures"]["yaw"]["status"] == "ok"
    saved = cv2.imread(str(fed.save(tmp_path / "face.png")))[..., ::-1]
    assert np.array_equal(saved, fed.image)
    with pytest.raises(UsageError, match="ends in"):
        fed.save(tmp_path / "face.txt")


def test_scored_faces_show_themselves_too(gate: Gate) -> None:
    (face,) = gate.score(astronaut())
    assert repr(face).startswith("<ScoredFace ") and face.to_dict()["box"] and face._repr_png_()
    (ready,) = gate.score(astronaut()[:112, :112], aligned="arcface")
    assert ready._repr_png_() is None
    with pytest.raises(UsageError, match="no picture"):
        ready.save("face.png")


def test_persons_are_known_in_memory(gate: Gate, tmp_path: Path) -> None:
    one = write_clip(tmp_path / "one.mp4", FRAMES)
    two = write_clip(tmp_path / "two.mp4", astronaut_frames(25, (480, 360), step=-1.0, zoom=1.5))
    people = gate.people(gate.tracks([one, two]))
    assert list(people) == ["p0001"] and len(people["p0001"]) == 2
    assert {shot.person_id for shot in people["p0001"]} == {"p0001"} and "p0001" in repr(people["p0001"][0])


RGB = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda gate: Gate(settings="a=1"), "takes a dict"),
        (lambda gate: Gate(settings=5), "takes a dict"),
        (lambda gate: Gate(settings=[5]), "got 5 in the list"),
        (lambda gate: Gate(settings={"measures.yaw.mx": 1}), "measures.yaw.max"),
        (lambda gate: Gate(preset=3), "preset takes a name"),
        (lambda gate: list(gate.run(RGB)), "Gate.feed"),
        (lambda gate: list(gate.run([RGB])), "got ndarray in the list"),
        (lambda gate: gate.score("face.jpg"), "takes pixels"),
        (lambda gate: list(gate.feed("video.mp4")), "feed takes an iterable"),
        (lambda gate: list(gate.feed([RGB])), "a pair (t, array), where t is a time in seconds"),
        (lambda gate: list(gate.feed([1], fps=5)), "must be RGB"),
        (lambda gate: list(gate.feed([RGB], fps=0)), "above 0"),
        (lambda gate: list(gate.feed([(1, RGB), (0, RGB)])), "times must increase"),
    ],
)
def test_wrong_arguments_are_answered_in_words(gate: Gate, wrong: Callable[[Gate], object], words: str) -> None:
    with pytest.raises(StreamgateError) as raised:
        wrong(gate)
    assert words in str(raised.value) and isinstance(raised.value, UsageError)


def test_no_frames_are_no_source(gate: Gate) -> None:
    with pytest.raises(SourceError, match="has no frames"):
        list(gate.feed([], fps=25))
