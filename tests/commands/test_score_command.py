"""`streamgate score`."""

from __future__ import annotations

import json
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
