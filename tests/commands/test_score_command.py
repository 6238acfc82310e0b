"""`streamgate score`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.command import streamgate
from support.media import astronaut
from support.real_weights import shared_part, standard_models


@pytest.fixture(scope="module")
def models() -> Path:
    return standard_models()


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "portrait.png"
    cv2.imwrite(str(path), cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR))
    return path


def test_each_image_gives_one_line_with_its_faces(portrait: Path, models: Path) -> None:
    done = streamgate("score", portrait, models=models)
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    record = json.loads(line)
    assert record["image"] == str(portrait)
    (face,) = record["faces"]
    assert {"box", "landmarks", "detection_score", "pose", "measures", "quality", "gate"} <= set(face)
    assert abs(face["pose"]["yaw"]) < 30 and face["measures"]["serfiq"]["status"] == "ok"
    assert "embedding" not in face


def test_embeddings_only_on_request(portrait: Path, models: Path) -> None:
    done = streamgate("score", portrait, "--embedding", models=models)
    (face,) = json.loads(done.out)["faces"]
    assert len(face["embedding"]) == 128


def test_ready_crops_are_scored_without_detecting(models: Path) -> None:
    crop = sorted(shared_part("faces/hq_val").iterdir())[0]
    done = streamgate("score", crop, "--aligned", "ffhq", models=models)
    assert done.code == 0, done.err
    (face,) = json.loads(done.out)["faces"]
    assert face["measures"]["serfiq"]["scalar"] > 50
    assert face["measures"]["size"]["status"] == "not_scored" and face["quality"] is None


def test_a_crop_without_a_face_scores_low_and_is_no_exception(models: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (112, 112, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    done = streamgate("score", tmp_path / "noise.png", "--aligned", "arcface", models=models)
    assert done.code == 0, done.err
    (face,) = json.loads(done.out)["faces"]
    assert face["measures"]["serfiq"]["scalar"] < 30


def test_an_image_without_a_face_has_none(models: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((200, 300, 3), 128, np.uint8))
    done = streamgate("score", tmp_path / "grey.png", models=models)
    assert done.code == 0 and json.loads(done.out)["faces"] == []


def test_unreadable_images_are_named(portrait: Path, models: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a png")
    done = streamgate("score", tmp_path / "broken.png", portrait, models=models)
    assert done.code == 1 and "broken.png" in done.err and len(done.out.splitlines()) == 1
    assert streamgate("score", tmp_path / "broken.png", models=models).code == 3
    assert streamgate("score", tmp_path / "missing.png", models=models).code == 3


def test_lines_come_in_the_order_of_the_arguments(portrait: Path, models: Path, tmp_path: Path) -> None:
    named = tmp_path / "without-suffix"
    named.write_bytes(portrait.read_bytes())
    done = streamgate("score", portrait, named, portrait, models=models)
    assert done.code == 0, done.err
    assert [json.loads(line)["image"] for line in done.out.splitlines()] == [str(portrait), str(named), str(portrait)]


def test_heatmaps_show_each_face_beside_its_map(portrait: Path, models: Path, tmp_path: Path) -> None:
    done = streamgate("score", portrait, "--heatmap", tmp_path / "maps", models=models)
    assert done.code == 0, done.err
    (face,) = json.loads(done.out)["faces"]
    assert face["measures"]["ifqa"]["status"] == "ok"
    sheet = cv2.imread(str(tmp_path / "maps" / "portrait_1.png"))
    assert sheet.shape == (256, 512, 3)
    # The left half is the face in its colours, the right one its grey picture under green and red.
    assert sheet[:, :256].mean(axis=(0, 1)).std() > 5
    assert sheet[:, 256:, 0].mean() < sheet[:, 256:, 1:].mean()


def test_maps_of_images_with_one_name_are_distinct_files(portrait: Path, models: Path, tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "b/2.png", "B/1.png", "b-1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(portrait, tmp_path / "in" / name)
    done = streamgate("score", tmp_path / "in", "--heatmap", tmp_path / "maps", models=models)
    assert done.code == 0, done.err
    images = [json.loads(line)["image"] for line in done.out.splitlines()]
    maps = [path.name for path in (tmp_path / "maps").iterdir()]
    assert len(images) == 5 == len({name.casefold() for name in maps}), maps
    assert "1_1.png" in maps and "b-1_1.png" in maps and "2_1.png" in maps


def test_ifqa_ranks_a_face_above_its_blurred_and_noisy_copies(portrait: Path, models: Path, tmp_path: Path) -> None:
    image = cv2.imread(str(portrait))
    noise = np.random.default_rng(0).normal(0, 18, image.shape)
    for name, changed in {
        "blurred": cv2.GaussianBlur(image, (0, 0), 2.0),
        "noisy": np.clip(image + noise, 0, 255).astype(np.uint8),
        "blocky": cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 12])[1], cv2.IMREAD_COLOR),
    }.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), changed)
    names = ["blurred", "noisy", "blocky"]
    done = streamgate("score", portrait, *(tmp_path / f"{name}.png" for name in names), models=models)
    assert done.code == 0, done.err
    clean, *worse = [json.loads(line)["faces"][0]["measures"]["ifqa"]["raw"] for line in done.out.splitlines()]
    assert all(value < clean - 0.1 for value in worse), (clean, dict(zip(names, worse, strict=True)))


@pytest.fixture(scope="module")
def folder(portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five faces, a picture without one, a broken file, and a name that a spreadsheet would compute."""
    path = tmp_path_factory.mktemp("folder")
    for number in range(4):
        shutil.copy(portrait, path / f"{number}.png")
    shutil.copy(portrait, path / "=1+1.png")
    cv2.imwrite(str(path / "grey.png"), np.full((200, 300, 3), 128, np.uint8))
    (path / "broken.png").write_bytes(b"not a png")
    return path


def test_a_folder_becomes_a_table_with_a_row_for_each_face_and_for_what_has_none(
    folder: Path, models: Path, tmp_path: Path
) -> None:
    done = streamgate("score", folder, "-o", tmp_path / "scores.csv", models=models)
    assert done.code == 1 and "broken.png" in done.err and done.out == ""
    assert "5 faces of 6 images in" in done.err
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = {Path(row["image"]).name: row for row in csv.DictReader(file)}
    assert len(rows) == 7
    assert rows["grey.png"]["faces"] == "0" and rows["grey.png"]["quality"] == "" == rows["grey.png"]["error"]
    assert "broken.png" in rows["broken.png"]["error"]
    assert len({row["serfiq_raw"] for row in rows.values() if row["face"] == "1"}) == 1
    (line,) = streamgate("score", folder / "0.png", models=models).out.splitlines()
    (face,) = json.loads(line)["faces"]
    assert float(rows["0.png"]["quality"]) == face["quality"]
    assert rows["0.png"]["gate_reasons"] == " ".join(face["gate"]["reasons"])


def test_formats_hold_the_same_and_jobs_change_nothing(folder: Path, models: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for name, jobs in (("a.jsonl", 1), ("b.jsonl", 5), ("c.parquet", 3)):
        assert streamgate("score", folder, "-o", tmp_path / name, "--jobs", jobs, models=models).code == 1
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    told = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    rows = parquet.read_table(tmp_path / "c.parquet").to_pylist()
    assert [row["image"] for row in rows] == [one["image"] for one in told]
    qualities = [one["faces"][0]["quality"] if one["faces"] else None for one in told]
    assert [row["quality"] for row in rows] == qualities


def test_a_table_that_cannot_be_is_refused_before_anything_is_scored(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    for words, told in (
        (("-o", tmp_path / "a.xlsx"), ".jsonl, .csv, .parquet"),
        (("-o", tmp_path / "there.csv"), "exists"),
        (("-o", tmp_path / "a.csv", "--embedding"), "does not work with a table"),
    ):
        done = streamgate("score", folder, *words)
        assert done.code == 2 and told in done.err, done.err
    assert (tmp_path / "there.csv").read_text() == "mine"
