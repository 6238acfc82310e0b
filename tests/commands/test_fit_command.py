"""`streamgate fit` through its public door, on real networks."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.labels import FaceKey, labels_text, read_labels
from streamgate.store.folder import RunFolder
from support.command import Done, inside, streamgate
from support.media import astronaut_frames, plain_frames, write_clip

BLURS = (0.0, 1.5, 4.0)
"""By turns over a clip, a tenth of it each; a person calls them good, usable and bad."""

SHOT = 59
"""Frames from cut to cut, 54 of them with a face."""


def clip(path: Path, zooms: tuple[float, ...]) -> Path:
    """A track for each zoom, parted by cuts; every six frames the blur changes."""
    frames: list[np.ndarray] = []
    for zoom in zooms:
        for number, frame in enumerate(astronaut_frames(54, (640, 480), step=1.0, zoom=zoom)):
            sigma = BLURS[number // 6 % 3]
            frames.append(cv2.GaussianBlur(frame, (0, 0), sigma) if sigma else frame)
        frames += plain_frames(SHOT - 54, (640, 480))
    return write_clip(path, frames)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    clips = [clip(folder / "one.mp4", (1.6, 1.2)), clip(folder / "two.mp4", (1.4,))]
    done = streamgate("run", *clips, "-o", folder / "out", "--set", "exhaustive=true", "--set", "output.report=false")
    assert done.code == 0, done.err
    return folder / "out"


@pytest.fixture(scope="module")
def labels(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a person says who goes by the blur alone."""
    said = {}
    for source_id in results_sources(results):
        for face in RunFolder(results).candidates(source_id):
            number = face["frame_index"] % SHOT
            if number % 2 == 0:
                said[FaceKey(source_id, face["track_id"], face["pts_seconds"])] = 2 - number // 6 % 3
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    path.write_text(labels_text(said.items()))
    assert read_labels(path) == (said, [])
    return path


def results_sources(out: Path) -> list[str]:
    return RunFolder(out).source_ids


def fit(out: Path, labels: Path, target: Path) -> Done:
    return inside("fit", out, "--labels", labels, "-o", target)


def test_what_people_go_by_counts_more_and_run_and_tune_take_the_preset(
    results: Path, labels: Path, tmp_path: Path
) -> None:
    done = streamgate("fit", results, "--labels", labels, "-o", tmp_path / "mine.toml")
    assert done.code == 0, done.err
    more = next(line for line in done.out.splitlines() if line.strip().startswith("counts more"))
    assert "sharpness" in more or "ifqa" in more
    assert "of 3 tracks in 2 sources" in done.out and "few labels" in done.err
    tables = tomllib.loads((tmp_path / "mine.toml").read_text())
    assert tables["extends"] == "studio" and tables["measures"]
    assert load_config(str(tmp_path / "mine.toml")) != load_config("studio")
    before = json.loads((results / "summary.json").read_text())
    dry = inside("tune", results, "--preset", tmp_path / "mine.toml", "--dry-run")
    assert dry.code == 0, dry.err
    assert "measures." in dry.out and "Quality is now computed differently" in dry.out
    assert json.loads((results / "summary.json").read_text()) == before


def test_agreement_grows_on_what_the_fit_did_not_see(results: Path, labels: Path, tmp_path: Path) -> None:
    done = fit(results, labels, tmp_path / "mine.toml")
    assert done.code == 0, done.err
    (line,) = [one for one in done.out.splitlines() if one.startswith("pairs within a track in the right order")]
    before, after = (int(word) for word in line.split() if word.isdigit())
    assert after >= before and after > 80
    assert fit(results, labels, tmp_path / "mine.toml").code == 2  # it exists now
    again = fit(results, labels, tmp_path / "again.toml")
    assert again.code == 0 and (tmp_path / "again.toml").read_bytes() == (tmp_path / "mine.toml").read_bytes()


def test_labels_that_cannot_be_used_are_named_and_the_others_count(
    results: Path, labels: Path, tmp_path: Path
) -> None:
    whole = labels.read_text()
    first = whole.splitlines()[1]
    (tmp_path / "labels.csv").write_text(
        whole
        + f"nobody-12345678,1,0.5,good\n{first.rsplit(',', 1)[0]},bad\n{first.rsplit(',', 1)[0]},good\n"
        + f"{results_sources(results)[0]},1,99.0,good\n{results_sources(results)[0]},x,0,good\n"
        + f"{results_sources(results)[0]},1,0.0,lovely\n"
    )
    done = fit(results, tmp_path / "labels.csv", tmp_path / "mine.toml")
    assert done.code == 0, done.err
    for words in (
        "source nobody-12345678 is not in these results", "two different labels", "has the track and time of",
        "is not a number", "'lovely' is not one of good, usable, bad",
    ):  # fmt: skip
        assert words in done.err, words


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda text: "\n".join(text.splitlines()[:8]), 2, "a fit needs at least"),
        (lambda text: text.replace(",bad", ",good").replace(",usable", ",good"), 2, "all labels are good"),
        (lambda text: text.replace("label", "mark", 1), 3, "no column label"),
    ],
)
def test_too_few_constant_or_foreign_labels_are_refused(
    results: Path, labels: Path, tmp_path: Path, change: object, code: int, words: str
) -> None:
    (tmp_path / "labels.csv").write_text(change(labels.read_text()))  # type: ignore[operator]
    done = fit(results, tmp_path / "labels.csv", tmp_path / "mine.toml")
    assert done.code == code and words in done.err, done.err
    assert not (tmp_path / "mine.toml").exists()


def test_a_folder_without_results_is_named(labels: Path, tmp_path: Path) -> None:
    done = fit(tmp_path, labels, tmp_path / "mine.toml")
    assert done.code == 3 and "contains no results" in done.err
