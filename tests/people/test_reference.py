"""Keeping one person."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from streamgate.errors import UsageError
from streamgate.faces import Evidence, Face, Measure, ScoredFace
from streamgate.people.reference import Reference, read_reference
from support.command import lines, streamgate
from support.media import astronaut, astronaut_frames, write_clip
from support.people_folder import person, template

VECTOR = person(0).vector


def found(eyes: float = 60, serfiq: float = 90, vector: np.ndarray | None = VECTOR) -> ScoredFace:
    landmarks = np.zeros((5, 2), np.float32)
    landmarks[1, 0] = eyes
    face = Face(np.array([0, 0, 100, 100], np.float32), landmarks, 0.9)
    measures = {"serfiq": Measure.ok(0.9, serfiq)}
    return ScoredFace(face, Evidence(embedding=vector), measures)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "ann.png"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    return path


@pytest.mark.parametrize(
    ("faces", "words"),
    [
        ([], "no face was found.*use a sharp, frontal picture"),
        ([found(), found(eyes=30)], "shows 2 faces; crop it"),
        ([found(serfiq=10)], "too small, turned away, blurred or covered"),
        ([found(eyes=9)], "too small"),
        ([found(vector=None)], "too small"),
    ],
)
def test_a_picture_that_does_not_show_one_person_well_is_refused_with_a_remedy(
    picture: Path, faces: list[ScoredFace], words: str
) -> None:
    with pytest.raises(UsageError, match=rf"--only .*ann\.png: .*{words}"):
        read_reference(picture, lambda image: faces, 0.5)


def test_pictures_that_cannot_be_read_and_recognizers_without_a_threshold_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    for name, why in (("text.jpg", "is not a picture"), ("missing.jpg", r"cannot be read \(No such file [a-z ]+\);")):
        with pytest.raises(UsageError, match=f"{name}: {why}"):
            read_reference(tmp_path / name, lambda image: [found()], 0.5)
    with pytest.raises(UsageError, match=r"identity\.threshold"):
        read_reference(tmp_path / "missing.jpg", lambda image: [found()], None)


def test_background_faces_do_not_count_and_only_sure_tracks_are_the_one(picture: Path) -> None:
    wanted = read_reference(picture, lambda image: [found(), found(eyes=15)], 0.5)
    assert wanted.shows(person(0, 50)) and not wanted.shows(person(0, 70)) and not wanted.shows(person(1))
    assert not wanted.shows(None) and not wanted.shows(template(VECTOR, weight=0.1))
    assert isinstance(wanted, Reference) and len(wanted.sha256) == 64


def test_run_keeps_the_one_and_writes_nothing_of_others(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", astronaut_frames(20, (640, 480), step=1.0, zoom=1.6))
    cv2.imwrite(str(tmp_path / "ann.png"), cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR))
    cv2.imwrite(str(tmp_path / "nobody.png"), np.full((300, 300, 3), 120, np.uint8))
    nothing = tmp_path / "nothing"
    done = streamgate("run", clip, "-o", tmp_path / "out", "--only", tmp_path / "ann.png", models=nothing)
    assert done.code == 0, done.err
    assert len(lines(tmp_path / "out" / "faces.jsonl")) == 1
    done = streamgate("run", clip, "-o", tmp_path / "none", "--only", tmp_path / "nobody.png", models=nothing)
    assert done.code == 2 and "no face was found" in done.err
    # The least likeness that no track can reach stands for a picture of somebody else.
    done = streamgate(
        "run", clip, "-o", tmp_path / "other", "--only", tmp_path / "ann.png", "--set", "identity.threshold=0.9999",
        models=nothing,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert lines(tmp_path / "other" / "faces.jsonl") == [] and not list((tmp_path / "other").rglob("*.png"))
    (source,) = (tmp_path / "other").glob("clip-*")
    assert [one["reasons"] for one in lines(source / "tracks.jsonl")] == [["other_person"]]
