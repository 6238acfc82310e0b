"""`streamgate run --crop --format --quality`: which pictures there are, and what is in them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from streamgate.gate import Gate
from streamgate.networks.alignment import arcface_matrix
from support.command import Done, lines, streamgate
from support.media import astronaut_frames, write_clip

CROPS = ("--crop", "arcface", "--crop", "loose", "--crop", "frame")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(
        tmp_path_factory.mktemp("clips") / "speaker.mp4", astronaut_frames(30, (640, 480), step=1.0, zoom=1.6)
    )


def run(clip: Path, out: Path, *options: object) -> Done:
    done = streamgate("run", clip, "-o", out, *options)
    assert done.code == 0, done.err
    return done


def picture(path: Path) -> np.ndarray:
    read = cv2.imread(str(path))
    assert read is not None, path
    return read[..., ::-1]


def test_every_crop_lies_beside_the_first_and_the_record_lists_them(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path / "out", *CROPS, "--set", "output.size=256")
    (record,) = lines(tmp_path / "out" / "faces.jsonl")
    folder = f"{record['source_id']}/track_0001"
    assert {name: crop["image"] for name, crop in record["crops"].items()} == {
        "ffhq": f"{folder}/1.png", "arcface": f"{folder}/1.arcface.png", "loose": f"{folder}/1.loose.png",
        "frame": f"{folder}/1.frame.png",
    }  # fmt: skip
    assert record["image"] == record["crops"]["ffhq"]["image"]
    shown = {name: picture(tmp_path / "out" / crop["image"]) for name, crop in record["crops"].items()}
    for name, crop in record["crops"].items():
        assert [*shown[name].shape[1::-1]] == crop["size"] and crop["quality"] is None
    assert record["crops"]["ffhq"]["size"] == [256, 256] and record["crops"]["arcface"]["size"] == [112, 112]
    assert record["crops"]["frame"]["box"] == [0, 0, 640, 480]
    left, top, right, bottom = record["crops"]["loose"]["box"]
    x1, y1, x2, y2 = record["box"]
    assert left < x1 and top <= y1 and right > x2 and bottom > y2
    assert np.array_equal(shown["loose"], shown["frame"][top:bottom, left:right])
    listed = {path.name for path in (tmp_path / "out" / folder).iterdir()}
    assert listed == {"1.png", "1.arcface.png", "1.loose.png", "1.frame.png"}


def test_the_arcface_crop_has_the_face_where_the_template_says(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path / "out", "--crop", "frame", "--crop", "arcface")
    (record,) = lines(tmp_path / "out" / "faces.jsonl")
    assert list(record["crops"]) == ["ffhq", "arcface", "frame"]
    crop, frame = (picture(tmp_path / "out" / record["crops"][name]["image"]) for name in ("arcface", "frame"))
    expected = cv2.warpAffine(frame, arcface_matrix(np.array(record["landmarks"])), (112, 112))
    assert np.abs(crop.astype(int) - expected).mean() < 6
    mirrored = np.abs(crop[:, ::-1].astype(int) - expected).mean()
    assert mirrored > 20, "the measure tells pictures apart"


def test_auto_quality_is_the_smallest_that_the_networks_cannot_tell(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path / "png", "--set", "output.size=256")
    coded = ("--format", "jpeg", "--quality", "auto", "--crop", "arcface")
    run(clip, tmp_path / "auto", "--set", "output.size=256", *coded)
    (lossless,), (record,) = (lines(tmp_path / name / "faces.jsonl") for name in ("png", "auto"))
    quality = record["crops"]["ffhq"]["quality"]
    assert 30 <= quality <= 100 and record["image"].endswith(".jpg")
    assert record["crops"]["arcface"]["image"].endswith("1.arcface.jpg")
    files = [(tmp_path / name / one["image"]) for name, one in (("png", lossless), ("auto", record))]
    assert files[1].stat().st_size < files[0].stat().st_size / 2
    with Gate() as gate:
        (before,), (after,) = (gate.score(picture(path), aligned="ffhq") for path in files)
    near = before.embedding @ after.embedding / np.linalg.norm(before.embedding) / np.linalg.norm(after.embedding)
    assert near > 0.98
    assert before.measures["ifqa"].raw - after.measures["ifqa"].raw < 0.1


def test_a_quality_without_a_format_that_has_one_is_refused(clip: Path, tmp_path: Path) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "out", "--quality", "auto")
    assert done.code == 2 and "--format jpeg" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("quality", ["0", "101", "best"])
def test_a_wrong_quality_is_named(quality: str, clip: Path, tmp_path: Path) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "out", "--format", "jpeg", "--quality", quality)
    assert done.code == 2 and "output.quality: give 1 to 100, or auto" in done.err


def test_a_crop_that_does_not_exist_is_named(clip: Path, tmp_path: Path) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "out", "--crop", "passport")
    assert done.code == 2 and "arcface" in done.err
