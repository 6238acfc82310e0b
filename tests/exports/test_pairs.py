"""`export --to pairs`: a face with a neutral expression and the seconds with the most movement, by the command."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from support.command import lines, streamgate
from support.media import astronaut, write_clip


def view(turn: float) -> np.ndarray:
    """The portrait, 640 x 480, in perspective as if it turned about its vertical axis."""
    picture = cv2.resize(astronaut(), (1024, 1024))[:480, 90:730]
    corners = np.array([[0, 0], [640, 0], [640, 480], [0, 480]], np.float32)
    left, right = max(turn, 0.0), max(-turn, 0.0)
    inset = np.array([[60 * left, 40 * left], [0, 40 * right], [0, -40 * right], [60 * left, -40 * left]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, corners + inset)
    return cv2.warpPerspective(picture, matrix, (640, 480), borderMode=cv2.BORDER_REFLECT)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a clip in which nothing moves for two seconds and the face is turned about for three."""
    folder = tmp_path_factory.mktemp("pairs")
    write_clip(folder / "speaker.mp4", [view(0.0)] * 50 + [view(2.2 * math.sin(index / 6)) for index in range(75)])
    done = streamgate("run", folder / "speaker.mp4", "-o", folder / "out", "--models", "embedded")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def out(ran: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ran / "out", tmp_path / "out"))


def test_each_person_has_a_reference_and_the_seconds_that_move_most(out: Path) -> None:
    assert streamgate("people", out, "name", "p0001", "Eileen Collins").code == 0
    done = streamgate("export", out, "--to", "pairs", "--seconds", 1.5)
    assert done.code == 0 and "1 pair in" in done.err, done.err
    target = out / "exports" / "pairs"
    (pair,) = lines(target / "pairs.jsonl")
    (face,) = lines(out / "faces.jsonl")
    assert (pair["person_id"], pair["name"], pair["reference"]["id"]) == ("p0001", "Eileen Collins", face["id"])
    assert (target / pair["reference"]["image"]).read_bytes() == (out / face["image"]).read_bytes()
    driving = pair["driving"]
    assert driving["start_seconds"] >= 1.5 and driving["end_seconds"] == pytest.approx(driving["start_seconds"] + 1.5)
    assert driving["mouth_range"] > 0.02 and driving["source_id"] == face["source_id"]
    with av.open(str(target / driving["video"])) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames == pytest.approx(1.5 * 25, abs=1)
    # It is ours: kept as it is, replaced when asked, and gone with the results.
    assert "pairs/pairs.jsonl" in " ".join(json.loads((out / ".streamgate" / "manifest.json").read_text())["files"])
    assert streamgate("export", out, "--to", "pairs").code == 2
    assert streamgate("export", out, "--to", "pairs", "--seconds", 1, "--overwrite").code == 0


def test_who_is_seen_too_briefly_has_a_reference_and_no_driving(out: Path, tmp_path: Path) -> None:
    done = streamgate("export", out, "--to", "pairs", "--seconds", 60, "-o", tmp_path / "pairs")
    assert done.code == 0 and "0 pairs in" in done.err, done.err
    assert "1 person was never in view for 60 s without a break and has no driving video" in done.err
    (pair,) = lines(tmp_path / "pairs" / "pairs.jsonl")
    assert pair["driving"] is None and (tmp_path / "pairs" / pair["reference"]["image"]).is_file()


def test_footage_that_moved_is_named_or_found(ran: Path, out: Path, tmp_path: Path) -> None:
    moved = (ran / "speaker.mp4").rename(tmp_path / "speaker.mp4")
    try:
        done = streamgate("export", out, "--to", "pairs", "--seconds", 1, "-o", tmp_path / "a")
        assert "speaker.mp4: is no longer where the run read it" in done.err and "--footage" in done.err
        (pair,) = lines(tmp_path / "a" / "pairs.jsonl")
        assert pair["driving"]["video"] is None and pair["driving"]["end_seconds"] > 0
        found = ("--footage", tmp_path, "-o", tmp_path / "b")
        assert streamgate("export", out, "--to", "pairs", "--seconds", 1, *found).code == 0
        assert (tmp_path / "b" / "p0001" / "driving.mp4").is_file()
    finally:
        moved.rename(ran / "speaker.mp4")


def test_a_run_without_persons_says_how_to_get_them(out: Path, tmp_path: Path) -> None:
    records = lines(out / "faces.jsonl")
    (out / "faces.jsonl").write_text("".join(json.dumps({**one, "person_id": None}) + "\n" for one in records))
    done = streamgate("export", out, "--to", "pairs", "-o", tmp_path / "pairs")
    assert done.code == 2 and "identity.store=session" in done.err and not (tmp_path / "pairs").exists()
