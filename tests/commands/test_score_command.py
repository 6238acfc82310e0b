"""`streamgate score`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from command import streamgate
from media import astronaut
from real_weights import shared_part, standard_models


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
