"""Reading training pictures: what cannot be used is said in one line before anything starts."""

from __future__ import annotations

import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from models.common.align import align_ffhq, ffhq_matrix
from models.common.images import DataError, build_cache, decode_rgb, list_sources, shrink_square, write_rgb
from models.common.overlap import EvaluationSet, find_overlaps


def fill(folder: Path, count: int, side: int = 64) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(4)
    for i in range(count):
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        write_rgb(folder / f"{i}.png", np.kron(coarse, np.ones((side // 8, side // 8, 1), np.uint8)))
    return folder


def test_a_folder_and_a_tar_of_it_hold_the_same_pictures(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces", 3)
    with tarfile.open(tmp_path / "faces.tar", "w") as archive:
        archive.add(folder, "faces")
    from_tar = [s.data for s in list_sources([tmp_path / "faces.tar"])]
    assert from_tar == [s.data for s in list_sources([folder])]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no pictures in"):
        build_cache([tmp_path / "none"], tmp_path / "cache", 64)


def test_too_few_faces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only 3 pictures"):
        build_cache([fill(tmp_path / "faces", 3)], tmp_path / "cache", 64, minimum=4)


def test_unreadable_and_small_pictures_are_counted(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces", 4)
    (folder / "broken.png").write_bytes(b"no picture")
    fill(folder / "small", 2, side=32)
    cache = build_cache([folder], tmp_path / "cache", 64, minimum=4)
    assert (len(cache.names), cache.skipped_unreadable, cache.skipped_small) == (4, 1, 2)
    with pytest.raises(DataError, match="1 unreadable, 2 smaller than 64 px"):
        build_cache([folder], tmp_path / "cache", 64, minimum=5)


def test_too_small_a_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match="GiB free, the decoded cache needs"):
        build_cache([fill(tmp_path / "faces", 3)], tmp_path / "cache", 64)
    assert not any((tmp_path / "cache").iterdir())


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        list(list_sources([tmp_path / "absent"]))


def test_pictures_are_never_enlarged() -> None:
    with pytest.raises(ValueError, match="enlarged"):
        shrink_square(np.zeros((100, 90, 3), np.uint8), 96)


def test_evaluation_pictures_among_the_training_ones_are_found(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces", 6)
    cache = build_cache([folder], tmp_path / "cache", 64)
    seen = tmp_path / "evaluation"
    seen.mkdir()
    shutil.copy(folder / "2.png", seen / "same.png")
    # The same picture coded again: other bytes, no other look.
    write_rgb(seen / "coded.jpg", np.asarray(cache.faces[4]))
    found = {Path(o.training).name: o.exact for o in find_overlaps(cache, EvaluationSet.read([seen]))}
    assert found == {"2.png": True, "4.png": False}


def test_a_picture_with_too_many_pixels_is_not_readable() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    assert decode_rgb(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")) is None


def test_an_aligned_face_aligned_again_stays_where_it_is() -> None:
    template = np.array([[0.378, 0.472], [0.622, 0.472], [0.5, 0.61], [0.402, 0.752], [0.598, 0.752]]) * 256
    corners = ffhq_matrix(template, 256) @ np.array([[0, 255, 0, 255], [0, 0, 255, 255], [1, 1, 1, 1]])
    wanted = np.array([[0, 255, 0, 255], [0, 0, 255, 255]])
    assert np.abs(corners - wanted).max() < 0.04 * 256


def test_mirrored_landmarks_give_the_mirrored_face() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (120, 120, 3), np.uint8)
    points = np.array([[40, 50], [80, 48], [61, 66], [45, 84], [77, 83]], np.float32)
    mirrored = np.array([[119 - x, y] for x, y in points], np.float32)[[1, 0, 2, 4, 3]]
    aligned = align_ffhq(picture, points, 64)
    again = align_ffhq(np.ascontiguousarray(picture[:, ::-1]), mirrored, 64)[:, ::-1]
    assert np.abs(aligned.astype(int) - again).mean() < 3
