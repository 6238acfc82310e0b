"""`streamgate demo`: from nothing to faces in one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamgate.config import load_config
from streamgate.demo import CUT_S, FPS, SECONDS
from streamgate.sources.file import VideoFile
from streamgate.tracking.cuts import Change, CutDetector
from support.command import lines, streamgate


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage", reason="the demo's portrait comes with scikit-image")
    folder = tmp_path_factory.mktemp("demo") / "demo"
    done = streamgate("demo", "-o", folder)
    assert done.code == 0, done.err
    assert str(folder / "faces.jsonl") in done.out
    return folder


def test_a_head_its_mirrored_copy_and_the_head_after_the_cut_each_give_their_best_face(out: Path) -> None:
    faces = lines(out / "faces.jsonl")
    first, copy, second = (record["track"] for record in faces)
    assert first["last_pts"] < CUT_S and copy["last_pts"] < CUT_S <= second["first_pts"]
    assert first["first_pts"] < copy["first_pts"] < first["last_pts"], "both are in the picture at once"
    assert all(record["gate"]["passed"] and (out / record["image"]).is_file() for record in faces)


def test_what_blurs_goes_dark_and_leaves_is_turned_away(out: Path) -> None:
    summary = json.loads((out / "summary.json").read_text())
    assert {"blurred", "dark", "edge"} <= summary["totals"]["rejected"].keys()


def test_it_can_be_run_again_in_its_folder_but_takes_no_other(out: Path, tmp_path: Path) -> None:
    other = tmp_path / "results"
    clip = tmp_path / "mine.mp4"
    clip.write_bytes((out / "astronaut.mp4").read_bytes())
    assert streamgate("run", clip, "-o", other, "--set", "exhaustive=false").code == 0
    before = (other / "faces.jsonl").read_bytes()
    done = streamgate("demo", "-o", other)
    assert done.code == 2 and "choose another folder" in done.err
    assert (other / "faces.jsonl").read_bytes() == before and not (other / "astronaut.mp4").exists()


def test_the_clip_is_fifteen_seconds_with_one_cut(out: Path) -> None:
    cuts = CutDetector(load_config("studio").advanced)
    with VideoFile(out / "astronaut.mp4") as clip:
        times = [(frame.pts_seconds, cuts.look(frame) is not Change.NONE) for frame in clip.frames()]
    assert len(times) == SECONDS * FPS and times[-1][0] == pytest.approx(SECONDS - 1 / FPS)
    assert [time for time, cut in times if cut] == [CUT_S]
