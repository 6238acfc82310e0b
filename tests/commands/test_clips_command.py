"""`streamgate clips`: seconds of which every frame passes."""

from __future__ import annotations

import gzip
import json
import shutil
import wave
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from support.command import lines, streamgate
from support.media import astronaut_frames, write_clip


def frames() -> list[np.ndarray]:
    """Three seconds of a face with a blurred half second after the first one."""
    made = astronaut_frames(75, (640, 480), step=0.5, zoom=1.6)
    return [cv2.GaussianBlur(one, (0, 0), 12) if 25 <= index < 38 else one for index, one in enumerate(made)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the footage and its results."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "footage").mkdir()
    write_clip(folder / "footage" / "speaker.mp4", frames(), audio=3.0, options={"g": "5"})
    done = streamgate("run", folder / "footage", "-o", folder / "out", "--set", "output.size=128")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def work(ran: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ran / "out", tmp_path / "out"))


@pytest.mark.parametrize(("cut", "per"), [("exact", "track"), ("keyframes", "person")])
def test_every_frame_of_a_clip_passes_the_gate(cut: str, per: str, work: Path, tmp_path: Path) -> None:
    done = streamgate("clips", work, "--preset", "strict", "--seconds", 1, "--top-k", 2, "--cut", cut, "--per", per)
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
    done = streamgate("clips", work, "--seconds", 2.5, "--max-bad", "5%")
    assert done.code == 0 and lines(work / "clips" / "clips.jsonl") == []
    assert "1 track without a good enough clip of at least 2.5 s: speaker-" in done.err


def test_a_clip_to_train_on_has_its_crop_rate_sound_and_table(work: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="tables are written with pyarrow")
    target = tmp_path / "set"
    done = streamgate(
        "clips", work, "--min-seconds", 0.8, "--max-seconds", 0.96, "--crop", "face", "--size", 256, "--fps", 50,
        "--audio", "wav16k", "-o", target,
    )  # fmt: skip
    assert done.code == 0, done.err
    (record,) = lines(target / "clips.jsonl")
    length = record["end_seconds"] - record["start_seconds"]
    assert 0.8 <= length <= 0.96 + 1e-6 and record["one_face"] == 1.0 and record["bad_frames"] == 0
    assert not (work / "clips").exists()
    with av.open(str(target / record["clip"])) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (256, 256) and container.streams.audio
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
    assert len(frames) == record["frames"] == round(length * 50)
    assert np.allclose([time for time, _ in frames], np.arange(len(frames)) / 50, atol=1e-3)
    with wave.open(str(target / record["audio"])) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16_000, 1, 2)
        assert sound.getnframes() == round(length * 16_000)
    table = pq.read_table(target / record["table"]).to_pylist()
    assert [row["frame"] for row in table] == list(range(record["frames"]))
    eyes = np.array([(row["left_eye_x"], row["left_eye_y"], row["right_eye_x"], row["right_eye_y"]) for row in table])
    # The square follows the face: in the clip it stays where it is, upright and in the upper half.
    assert np.ptp(eyes, axis=0).max() < 12 and (eyes[:, 1] < 140).all() and (eyes[:, 0] < eyes[:, 2]).all()
    # Where the table says there are eyes, there are: darker than the cheek below.
    for row, (_, picture) in list(zip(table, frames, strict=True))[::10]:
        x, y = round(row["left_eye_x"]), round(row["left_eye_y"])
        assert picture[y - 3 : y + 4, x - 3 : x + 4].min() < picture[y + 25 : y + 30, x - 3 : x + 4].mean() - 20
    assert table[0]["pose_yaw"] is not None and table[0]["sharpness_raw"] > 0 and table[0]["bad"] is False


def test_a_track_gives_several_clips_which_do_not_overlap(work: Path) -> None:
    done = streamgate("clips", work, "--seconds", 0.4, "--top-k", 3)
    assert done.code == 0, done.err
    spans = sorted((one["start_seconds"], one["end_seconds"]) for one in lines(work / "clips" / "clips.jsonl"))
    assert len(spans) == 3 and all(before[1] <= after[0] + 1e-6 for before, after in pairwise(spans))


def test_limits_of_single_frames_are_the_presets(work: Path, tmp_path: Path) -> None:
    # The blurred half second is in the way of a long clip, unless blur is none of its rules.
    mine = tmp_path / "mine.toml"
    mine.write_text("extends = 'talking'\n[clip]\nmin_seconds = 2.4\n[measures]\nsharpness.min = 0.0\n")
    others = [word for name in ("serfiq", "ifqa", "occlusion") for word in ("--set", f"measures.{name}.min=0")]
    done = streamgate("clips", work, "--preset", mine, *others)
    assert done.code == 0, done.err
    (record,) = lines(work / "clips" / "clips.jsonl")
    assert record["start_seconds"] < 1.0 and record["end_seconds"] > 1.52 and record["bad_frames"] == 0


def test_presets_after_public_recipes_make_what_these_ask_for(work: Path, tmp_path: Path) -> None:
    rules = ("--min-seconds", 0.8, "--set", "clip.min_face_px=100")
    done = streamgate("clips", work, "--preset", "latentsync", *rules, "-o", tmp_path / "sync")
    assert done.code == 0, done.err
    (record,) = lines(tmp_path / "sync" / "clips.jsonl")
    assert record["face_px"] >= 100 and record["one_face"] == 1.0 and record["audio"].endswith(".wav")
    with av.open(str(tmp_path / "sync" / record["clip"])) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate)) == (256, 256, 25.0)
    # The face is far from 500 px, and never turns.
    for preset, told in (("vfhq", "small"), ("talkvid", "too little rotation")):
        done = streamgate("clips", work, "--preset", preset, "--min-seconds", 0.8, "-o", tmp_path / preset)
        assert done.code == 0 and lines(tmp_path / preset / "clips.jsonl") == []
        assert "speaker-" in done.err and told in done.err, done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--preset", "talkvids"), "did you mean talkvid?"),
        (("--set", "clip.blink=1"), "clip.blink"),
        (("--set", "detection.interval_s=1"), "not a key of a clip preset"),
        (("--max-bad", "120%"), "not a share"),
        (("--seconds", 3, "--min-seconds", 2), "--seconds sets the length"),
        (("--cut", "keyframes", "--crop", "face"), "--cut keyframes copies"),
        (("--set", "measures.yaw.maximum=3"), "measures.yaw"),
    ],
)
def test_wrong_options_are_answered_in_words(words: tuple[object, ...], told: str, work: Path) -> None:
    done = streamgate("clips", work, *words)
    assert done.code == 2 and told in done.err, done.err


def test_sources_of_pictures_are_told_to_have_no_clips(tmp_path: Path) -> None:
    (tmp_path / "scene").mkdir()
    for index, frame in enumerate(astronaut_frames(15, (640, 480), step=0.5, zoom=1.6)):
        cv2.imwrite(str(tmp_path / "scene" / f"{index:04d}.png"), frame[..., ::-1])
    assert streamgate("run", tmp_path / "scene", "-o", tmp_path / "out", "--sequence", 25, "--quiet").code == 0
    done = streamgate("clips", tmp_path / "out", "--seconds", 0.4)
    assert done.code == 0 and "1 image source(s) skipped" in done.err and "without" not in done.err


def test_earlier_clips_are_replaced_only_when_asked(work: Path) -> None:
    (work / "clips").mkdir()
    (work / "clips" / "mine.txt").write_text("mine")
    done = streamgate("clips", work, "--overwrite")
    assert done.code == 2 and "was not written by `streamgate clips`; move it away" in done.err
    assert (work / "clips" / "mine.txt").read_text() == "mine"


def test_footage_that_moved_is_found_by_its_folder_and_else_named(work: Path, ran: Path, tmp_path: Path) -> None:
    moved = tmp_path / "archive" / "2024" / "speaker.mp4"
    moved.parent.mkdir(parents=True)
    (ran / "footage" / "speaker.mp4").rename(moved)
    try:
        done = streamgate("clips", work, "--seconds", 0.4)
        assert done.code == 3 and "--footage" in done.err
        assert "speaker.mp4: is no longer where the run read it" in done.err
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
    assert done.code == 2 and "different weights" in done.err and "--models" in done.err


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    assert streamgate("clips", tmp_path).code == 3
