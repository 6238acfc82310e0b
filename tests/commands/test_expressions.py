"""What a face does, as `run`, `tune` and presets ask for it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from streamgate.config import load_config
from streamgate.measures import known_measures
from support.command import lines, streamgate
from support.media import astronaut_frames, write_clip
from support.real_weights import standard_models

AT_REST = {"mouth", "expression", "gaze"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a smile with teeth."""
    frames = astronaut_frames(75, (640, 480), step=0.5, zoom=1.6)
    return write_clip(tmp_path_factory.mktemp("clips") / "smile.mp4", frames)


@pytest.fixture(scope="module")
def result(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    assert streamgate("run", clip, "-o", out).code == 0
    return out


def candidates(out: Path) -> list[dict[str, Any]]:
    with gzip.open(next(out.glob("*/candidates.jsonl.gz")), "rt") as file:
        return [json.loads(line) for line in file]


def test_a_smile_is_kept_and_all_of_it_is_told(result: Path) -> None:
    (face,) = lines(result / "faces.jsonl")
    for name in (*AT_REST, "eyes"):
        assert face["measures"][name]["status"] == "ok"
    assert {spec.name for spec in known_measures() if spec.at_rest} == AT_REST
    assert set(json.loads((result / "summary.json").read_text())["measure_set"]) >= AT_REST


def test_eyes_are_compared_with_what_the_track_shows_to_be_usual(result: Path) -> None:
    (track,) = lines(next(result.glob("*/tracks.jsonl")))
    usual = track["reference"]["eyes"]
    assert 0.07 <= usual < 0.25
    (face,) = lines(result / "faces.jsonl")
    (same,) = [one for one in candidates(result) if one["pts_seconds"] == face["pts_seconds"]]
    assert same["evidence"]["eyes_usual"] == usual and same["measures"] == face["measures"]


def test_any_expression_leaves_the_set_and_is_still_recorded(clip: Path, result: Path, tmp_path: Path) -> None:
    out = tmp_path / "any"
    assert streamgate("run", clip, "-o", out, "--set", "keep.expression=any").code == 0
    summary = json.loads((out / "summary.json").read_text())
    assert not AT_REST & set(summary["measure_set"]) and "eyes" in summary["measure_set"]
    (face,), (neutral,) = lines(out / "faces.jsonl"), lines(result / "faces.jsonl")
    assert face["measures"]["mouth"]["status"] == "ok"
    # A smile with teeth is no face at rest.
    assert face["quality"] > neutral["quality"] and face["calibration_id"] != neutral["calibration_id"]


def test_presets_and_all_poses_say_which_expressions_they_take() -> None:
    wanted = {name: load_config(name).keep.expression for name in ("studio", "archive", "live")}
    assert wanted == {"studio": "neutral", "archive": "any", "live": "any"}
    assert load_config("studio", ["keep.poses=all"]).keep.expression == "any"
    assert load_config("studio", ["keep.poses=all", "keep.expression=neutral"]).keep.expression == "neutral"


def test_weights_without_the_network_name_what_is_missing(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "standard"
    done = streamgate("run", clip, "-o", out, "--models", "standard", models=standard_models())
    assert done.code == 0, done.err
    absent = json.loads((out / "summary.json").read_text())["absent_measures"]
    assert {name: absent[name] for name in (*AT_REST, "eyes")} == dict.fromkeys((*AT_REST, "eyes"), "no_weights")
    (face,) = lines(out / "faces.jsonl")
    assert face["measures"]["mouth"] == {"raw": None, "scalar": None, "status": "no_weights"}


def test_turning_to_any_and_back_gives_back_the_very_face(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert streamgate("run", clip, "-o", out).code == 0
    (before,) = lines(out / "faces.jsonl")
    picture = (out / before["image"]).read_bytes()
    qualities = []
    for wanted in ("any", "neutral"):
        assert streamgate("tune", out, "--set", f"keep.expression={wanted}", "--pictured").code == 0
        (face,) = lines(out / "faces.jsonl")
        qualities.append(face["quality"])
    assert (face["pts_seconds"], face["calibration_id"]) == (before["pts_seconds"], before["calibration_id"])
    # Angles are stored with two decimals.
    assert qualities[1] == pytest.approx(before["quality"], abs=0.02) and qualities[0] > qualities[1] + 1
    assert (out / face["image"]).read_bytes() == picture
