"""`streamgate clips`: seconds of which every frame passes."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from command import lines, streamgate
from media import astronaut_frames, write_clip


def frames() -> list[np.ndarray]:
    """Three seconds of a face with a blurred half second after the first one."""
    made = astronaut_frames(75, (640, 480), step=0.5, zoom=1.6)
    return [cv2.GaussianBlur(one, (0, 0), 12) if 25 <= place < 38 else one for place, one in enumerate(made)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the footage and its results."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "footage").mkdir()
    write_clip(folder / "footage" / "speaker.mp4", frames(), audio=True, options={"g": "5"})
    done = streamgate("run", folder / "footage", "-o", folder / "out", "--set", "output.size=128")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def work(ran: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ran / "out", tmp_path / "out"))


@pytest.mark.parametrize(("cut", "per"), [("exact", "track"), ("keyframes", "person")])
def test_every_frame_of_a_clip_passes_the_gate(cut: str, per: str, work: Path, tmp_path: Path) -> None:
    done = streamgate("clips", work, "--seconds", 1, "--top-k", 2, "--cut", cut, "--per", per)
    assert done.code == 0, done.err
    records = lines(work / "clips" / "clips.jsonl")
    assert 1 <= len(records) <= 2
    (face,) = lines(work / "faces.jsonl")
    for rank, record in enumerate(records, 1):
        folder = f"{record['source_id']}/track_0001" if per == "track" else face["person_id"]
        assert record["clip"] == f"{folder}/{rank}.mp4"
        # Not in the blurred half second.
        assert record["end_seconds"] <= 1.0 + 1e-6 or record["start_seconds"] >= 1.52 - 1e-6
        assert record["end_seconds"] - record["start_seconds"] >= 1.0 - 1e-6
        clip = work / "clips" / record["clip"]
        checked = tmp_path / clip.stem
        assert streamgate("run", clip, "-o", checked, "--set", "exhaustive=true", "--quiet").code == 0
        (source,) = json.loads((checked / "summary.json").read_text())["sources"]
        assert source["frames"] == record["frames"] and source["decode_errors"] == 0
        with gzip.open(checked / source["source_id"] / "candidates.jsonl.gz", "rt") as file:
            passed = {one["frame_index"] for one in map(json.loads, file) if one["gate"]["passed"]}
        assert len(passed) >= 0.97 * record["frames"], "scored by another way, a frame at the limit may differ"
    manifest = json.loads((work / ".streamgate" / "manifest.json").read_text())
    assert f"clips/{records[0]['clip']}" in manifest["files"]


def test_tracks_without_such_seconds_are_told(work: Path) -> None:
    done = streamgate("clips", work, "--seconds", 2.5)
    assert done.code == 0 and lines(work / "clips" / "clips.jsonl") == []
    assert "1 track without 2.5 s in which every frame passes the gate: speaker-" in done.err


def test_sources_of_pictures_are_told_to_have_no_clips(tmp_path: Path) -> None:
    (tmp_path / "scene").mkdir()
    for place, frame in enumerate(astronaut_frames(15, (640, 480), step=0.5, zoom=1.6)):
        cv2.imwrite(str(tmp_path / "scene" / f"{place:04d}.png"), frame[..., ::-1])
    assert streamgate("run", tmp_path / "scene", "-o", tmp_path / "out", "--sequence", 25, "--quiet").code == 0
    done = streamgate("clips", tmp_path / "out", "--seconds", 0.4)
    assert done.code == 0 and "1 source(s) of pictures skipped" in done.err and "without" not in done.err


def test_earlier_clips_are_replaced_only_when_asked(work: Path) -> None:
    (work / "clips").mkdir()
    (work / "clips" / "mine.txt").write_text("mine")
    done = streamgate("clips", work, "--overwrite")
    assert done.code == 2 and "was not written by `streamgate clips`; move it away" in done.err
    assert "-o" not in done.err.split(), "clips has no such option"
    assert (work / "clips" / "mine.txt").read_text() == "mine"


def test_footage_that_moved_is_found_by_its_folder_and_else_named(work: Path, ran: Path, tmp_path: Path) -> None:
    moved = tmp_path / "archive" / "2024" / "speaker.mp4"
    moved.parent.mkdir(parents=True)
    (ran / "footage" / "speaker.mp4").rename(moved)
    try:
        done = streamgate("clips", work, "--seconds", 0.4)
        assert done.code == 3 and "speaker.mp4: is not where it was" in done.err and "--footage" in done.err
        assert not (work / "clips").exists()
        # Another video by that name is not taken for it.
        (tmp_path / "other").mkdir()
        write_clip(tmp_path / "other" / "speaker.mp4", astronaut_frames(5, (320, 240)))
        assert streamgate("clips", work, "--seconds", 0.4, "--footage", tmp_path / "other").code == 3
        done = streamgate("clips", work, "--seconds", 0.4, "--footage", tmp_path / "archive")
        assert done.code == 0 and len(lines(work / "clips" / "clips.jsonl")) == 1
    finally:
        moved.rename(ran / "footage" / "speaker.mp4")


def test_a_torn_candidates_file_is_named(work: Path) -> None:
    (path,) = work.glob("*/candidates.jsonl.gz")
    path.write_bytes(path.read_bytes()[:200])
    done = streamgate("clips", work, "--seconds", 0.4)
    assert done.code in (1, 3) and "candidates.jsonl.gz is cut off or damaged" in done.err


def test_other_weights_than_those_of_the_run_are_refused(work: Path) -> None:
    summary = json.loads((work / "summary.json").read_text())
    summary["weights"][0]["sha256"] = "0" * 64
    (work / "summary.json").write_text(json.dumps(summary))
    done = streamgate("clips", work)
    assert done.code == 2 and "other weights" in done.err and "--models" in done.err


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    assert streamgate("clips", tmp_path).code == 3
