"""`streamgate tune` through its public door, on real networks."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamgate.tuning.source import SourceOutcome
from streamgate.tuning.tune import TuneResult
from support.command import inside, lines, streamgate
from support.media import astronaut_frames, plain_frames, write_clip

MORE = ("--top-k", 3, "--set", "keep.min_gap_seconds=0.5", "--set", "keep.duplicate_cosine=1.5")
"""More faces, however much they look alike."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that drifts and grows a little, a cut, the same face smaller."""
    frames = astronaut_frames(60, (640, 480), step=1.0, zoom=1.6) + plain_frames(5, (640, 480))
    frames += astronaut_frames(60, (640, 480), step=2.0, zoom=1.1)
    return write_clip(tmp_path_factory.mktemp("clips") / "speaker.mp4", frames)


@pytest.fixture(scope="module")
def result(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    done = streamgate("run", clip, "-o", out)
    assert done.code == 0, done.err
    assert len(lines(out / "faces.jsonl")) == 2
    return out


@pytest.fixture
def out(result: Path, tmp_path: Path) -> Path:
    """A copy to tune."""
    return Path(shutil.copytree(result, tmp_path / "out"))


def state(folder: Path) -> dict[str, bytes]:
    """All that users see."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".streamgate" not in path.parts
    }


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def between(out: Path) -> float:
    """A shorter side that one of the two kept faces has and the other has not."""
    sides = sorted(min(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (face["box"] for face in lines(out / "faces.jsonl")))
    return (sides[0] + sides[1]) / 2


def test_a_stricter_limit_takes_a_face_away_and_says_why(out: Path) -> None:
    limit = between(out)
    before = lines(out / "faces.jsonl")
    done = streamgate("tune", out, "--min-size", limit)
    assert done.code == 0, done.err
    (left,) = lines(out / "faces.jsonl")
    assert min(left["box"][2] - left["box"][0], left["box"][3] - left["box"][1]) >= limit
    same = next(face for face in before if face["track_id"] == left["track_id"])
    others = {"track", "person_rank"}  # what was scored in all; the other face was the person's best
    assert {**left, **dict.fromkeys(others)} == {**same, **dict.fromkeys(others)}
    assert (out / left["image"]).is_file()
    gone = next(face for face in before if face["track_id"] != left["track_id"])
    assert not (out / gone["image"]).exists()
    told = summary(out)
    assert told["totals"]["kept"] == 1 and told["totals"]["rejected"]["small"] > 10
    assert told["config"]["measures"]["size"]["min"] == pytest.approx(limit)
    with gzip.open(out / gone["source_id"] / "candidates.jsonl.gz", "rt") as file:
        judged = [json.loads(line) for line in file]
    assert any(one["gate"]["reasons"] == ["small"] for one in judged if one["track_id"] == gone["track_id"])
    assert "rejected: small" in done.out and "1 track lost all faces" in done.out
    assert "small" in (out / "report.html").read_text()
    assert not (out / ".streamgate" / "tune").exists()


def test_turning_a_limit_back_gives_back_the_very_face_without_the_footage(
    result: Path, out: Path, clip: Path, tmp_path: Path
) -> None:
    """What was put aside is there again, to the byte; the clip is out of reach meanwhile."""
    assert streamgate("tune", out, "--min-size", between(out)).code == 0
    hidden = clip.rename(clip.with_suffix(".hidden"))
    try:
        done = streamgate("tune", out, "--set", "measures.size.min=0.1", "--pictured")
    finally:
        hidden.rename(clip)
    assert done.code == 0, done.err
    was, now = state(result), state(out)
    assert now.keys() == was.keys()
    assert {name for name in was if was[name] != now[name]} <= {"summary.json", "report.html"} | {
        name for name in was if name.endswith(("source.json", "report.jsonl.gz"))
    }


def test_a_setting_that_is_the_same_changes_nothing(result: Path, out: Path) -> None:
    done = streamgate("tune", out, "--max-yaw", 20)
    assert done.code == 0 and "nothing was changed" in done.out
    assert state(out) == state(result)


def test_a_dry_run_tells_and_changes_nothing(result: Path, out: Path) -> None:
    done = streamgate("tune", out, "--min-size", between(out), "--dry-run")
    assert done.code == 0 and "rejected: small" in done.out and "nothing was changed" in done.out
    assert state(out) == state(result)


@pytest.mark.parametrize("options", [("--max-yaw", 3), MORE, ("--set", "measures.serfiq.min=99")])
def test_a_dry_run_says_what_the_real_run_says(options: tuple, result: Path, out: Path) -> None:
    dry = streamgate("tune", out, *options, "--dry-run")
    assert dry.code == 0 and state(out) == state(result), dry.err
    real = streamgate("tune", out, *options)
    assert real.code == 0, real.err
    first, second = (done.out.split("\n") for done in (dry, real))
    same = next(number for number, line in enumerate(first) if "would be the results" in line)
    assert same > 3 and first[:same] == second[:same]


def test_what_was_set_is_told_with_its_value(out: Path) -> None:
    done = streamgate("tune", out, "--max-yaw", 3, "--set", "keep.top_k=2", "--pictured")
    assert done.code == 0, done.err
    assert "measures.yaw.max = 3.0 (was 20.0)" in done.out and "keep.top_k = 2 (was 1)" in done.out


@pytest.mark.parametrize(("kept", "limits", "told"), [
    (3, (25.0, 12.0), True), (1, (25.0, 12.0), False), (3, (12.0, 25.0), False), (3, (None, 12.0), False),
])  # fmt: skip
def test_why_a_stricter_limit_keeps_more_is_told(
    kept: int, limits: tuple, told: bool, result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = TuneResult(SourceOutcome(kept=2), SourceOutcome(kept=kept), {"measures.yaw.max": limits})
    monkeypatch.setattr("streamgate.tuning.tune.tune", lambda *arguments, **options: tuned)
    done = inside("tune", str(result), "--max-yaw", 12)
    assert done.code == 0 and ("More faces are kept although the limit is stricter" in done.out) == told


def test_more_faces_are_cut_from_the_footage(out: Path, clip: Path) -> None:
    done = streamgate("tune", out, *MORE)
    assert done.code == 0, done.err
    assert "scored in the footage" in done.out
    faces = lines(out / "faces.jsonl")
    assert len(faces) > 3
    for face in faces:
        picture = cv2.imread(str(out / face["image"]))
        assert picture.shape == (512, 512, 3)
        assert picture[200:350, 200:310].mean() > 90, "the astronaut's skin, not what lies beside it"
        assert face["gate"]["passed"] and face["quality"] is not None
    ranks = [face["rank"] for face in faces if face["track_id"] == 1]
    assert ranks == list(range(1, len(ranks) + 1))
    # As if it had been run so: another run agrees on what the folder was made with.
    done = streamgate("run", clip, "-o", out, "--resume", *MORE)
    assert done.code == 0, done.err


def test_new_faces_have_all_the_pictures_that_the_run_was_to_write(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert streamgate("run", clip, "-o", out, "--crop", "arcface", "--format", "jpeg", "--quality", 90).code == 0
    before = len(lines(out / "faces.jsonl"))
    done = streamgate("tune", out, *MORE)
    assert done.code == 0, done.err
    after = lines(out / "faces.jsonl")
    assert len(after) > before
    for face in after:
        sizes = {name: crop["size"] for name, crop in face["crops"].items()}
        assert sizes == {"ffhq": [512, 512], "arcface": [112, 112]}
        for crop in face["crops"].values():
            assert crop["image"].endswith(".jpg") and crop["quality"] == 90
            assert [*cv2.imread(str(out / crop["image"])).shape[1::-1]] == crop["size"]


def test_frames_of_an_image_sequence_are_found_again_also_where_it_was_moved(tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    folder.mkdir()
    for index, frame in enumerate(astronaut_frames(40, (640, 480), step=1.0, zoom=1.6)):
        cv2.imwrite(str(folder / f"{index:04d}.png"), frame[..., ::-1])
    out = tmp_path / "out"
    assert streamgate("run", folder, "-o", out, "--sequence", 23.976).code == 0
    shutil.copytree(out, tmp_path / "second")
    done = streamgate("tune", out, *MORE)
    assert done.code == 0 and len(lines(out / "faces.jsonl")) > 1, done.err
    (tmp_path / "archive" / "other").mkdir(parents=True)
    folder.rename(tmp_path / "archive" / "scene")
    cv2.imwrite(str(tmp_path / "archive" / "other" / "1.png"), np.zeros((48, 64, 3), np.uint8))
    done = streamgate("tune", tmp_path / "second", *MORE, "--footage", tmp_path / "archive")
    assert done.code == 0, done.err
    assert (tmp_path / "second" / "faces.jsonl").read_bytes() == (out / "faces.jsonl").read_bytes()


def test_the_bin_of_a_pose_is_told_and_taken_back_where_the_same_face_stays(out: Path) -> None:
    kept = [face["pts_seconds"] for face in lines(out / "faces.jsonl")]
    for poses, told in (("all", True), ("frontal", False)):
        assert streamgate("tune", out, "--set", f"keep.poses={poses}", "--pictured").code == 0
        faces = lines(out / "faces.jsonl")
        assert [face["pts_seconds"] for face in faces] == kept
        assert all((face["pose_bin"] is not None) == told for face in faces)


def test_other_weights_of_the_measures_change_what_quality_means(out: Path) -> None:
    before = summary(out)["calibration_id"]
    done = streamgate("tune", out, "--set", "measures.size.weight=3")
    assert done.code == 0, done.err
    assert "do not compare" in done.out
    told = summary(out)
    assert told["calibration_id"] != before
    for face in lines(out / "faces.jsonl"):
        assert face["calibration_id"] == told["calibration_id"]
        scalars = {name: measure["scalar"] for name, measure in face["measures"].items()}
        weights = {name: told["config"]["measures"][name]["weight"] for name in told["measure_set"]}
        logs = [weight * np.log(max(1.0, scalars[name])) for name, weight in weights.items()]
        assert face["quality"] == pytest.approx(np.exp(sum(logs) / sum(weights.values())), abs=1e-3)


def test_without_the_footage_it_says_which_and_loses_nothing(
    result: Path, out: Path, clip: Path, tmp_path: Path
) -> None:
    hidden = clip.rename(tmp_path / "elsewhere.mp4")
    try:
        done = streamgate("tune", out, *MORE)
        assert done.code == 3
        assert str(clip) in done.err and "--footage" in done.err and "nothing was changed" in done.err
        assert state(out) == state(result)
        # Moved and called otherwise, it is found by what it holds; its name is part of its id.
        moved = tmp_path / "archive" / clip.name
        moved.parent.mkdir()
        shutil.copy(hidden, moved)
        done = streamgate("tune", out, *MORE, "--footage", tmp_path / "archive")
        assert done.code == 0, done.err
        assert len(lines(out / "faces.jsonl")) > 3
    finally:
        hidden.rename(clip)


def test_footage_that_changed_is_not_taken_for_the_same(out: Path, result: Path, clip: Path, tmp_path: Path) -> None:
    hidden = clip.rename(tmp_path / "hidden.mp4")
    try:
        write_clip(clip, plain_frames(30, (640, 480)))
        done = streamgate("tune", out, *MORE)
        assert done.code == 3 and "has changed" in done.err
        assert state(out) == state(result)
    finally:
        hidden.replace(clip)


def test_profiles_kept_with_all_poses_stay_kept(clip: Path, tmp_path: Path) -> None:
    """Networks that learned on frontal faces call a profile covered; with all poses that rejects none."""
    out = tmp_path / "out"
    assert streamgate("run", clip, "-o", out, "--poses", "all").code == 0
    kept = len(lines(out / "faces.jsonl"))

    def turned(record: dict[str, Any]) -> dict[str, Any]:
        covered = {"raw": 0.1, "scalar": 2.0, "status": "ok"}
        told = {**record, "pose": {**record["pose"], "yaw": 60.0}}
        told["measures"] = {**record["measures"], "occlusion": covered, "yaw": {**covered, "raw": 60.0, "scalar": 25.0}}
        return told | ({"evidence": {**record["evidence"], "visible": 0.1}} if "evidence" in record else {})

    for path in (*out.glob("*/candidates.jsonl.gz"), *out.glob("**/faces.jsonl")):
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt") as file:
            records = [json.loads(line) for line in file]
        with opened(path, "wt") as file:
            file.writelines(json.dumps(turned(one) if one["quality"] else one) + "\n" for one in records)
    done = streamgate("tune", out, "--set", "smoothing.long_s=3", "--pictured")
    assert done.code == 0, done.err
    assert len(lines(out / "faces.jsonl")) == kept > 0
    assert "occluded" not in summary(out)["totals"]["rejected"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("--set", "detection.interval_s=0.5"), "needs a new run"),
        (("--set", "output.size=256"), "needs a new run"),
        (("--set", "measures.yaw.ma=20"), "measures.yaw.max"),
        (("--max-yaw", "200"), "allowed"),
        (("--set", "measures.yaw.use=3"), "measures.yaw.use"),
    ],
)
def test_wrong_settings_are_named_and_change_nothing(
    out: Path, result: Path, settings: tuple[str, ...], told: str
) -> None:
    done = streamgate("tune", out, *settings)
    assert done.code == 2 and told in done.err
    assert state(out) == state(result)


@pytest.mark.parametrize("damage", ["torn", "another schema", "missing", "empty", "no faces", "no kept face"])
def test_candidates_that_cannot_be_read_whole_are_named_and_nothing_is_lost(out: Path, damage: str) -> None:
    (path,) = out.glob("*/candidates.jsonl.gz")
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "another schema":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'{"schema":1,', b'{"schema":7,')))
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "no faces":
        path.write_bytes(gzip.compress(b""))
    elif damage == "no kept face":
        kept = lines(out / "faces.jsonl")[0]["pts_seconds"]
        faces = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        path.write_bytes(gzip.compress(b"".join(one for one in faces if json.loads(one)["pts_seconds"] != kept)))
    else:
        path.unlink()
    before = state(out)
    done = streamgate("tune", out, "--max-yaw", 15)
    assert done.code == 3 and "candidates.jsonl.gz" in done.err and "run its source again" in done.err
    assert state(out) == before


def test_a_folder_that_is_no_result_is_refused(tmp_path: Path) -> None:
    done = streamgate("tune", tmp_path, "--max-yaw", 20)
    assert done.code == 3 and "streamgate run" in done.err
    assert list(tmp_path.iterdir()) == []
