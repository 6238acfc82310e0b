"""Exports, each read by the library that its users would use."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamgate.errors import ResultsError, UsageError
from streamgate.exports.formats import write_csv, write_imagefolder, write_parquet, write_webdataset
from streamgate.exports.table import columns_of
from streamgate.sinks.disk import DiskSink
from streamgate.store.folder import RunFolder
from streamgate.tracks import Crop, Encoding
from support.command import lines, streamgate
from support.sink_values import Make

KINDS = {"csv": write_csv, "parquet": write_parquet, "imagefolder": write_imagefolder, "webdataset": write_webdataset}


def needs(kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet is written with pyarrow")


def pixels(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return picture[..., ::-1]


def tree(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in path.rglob("*") if one.is_file()}


def check_row(row: dict[str, Any], record: dict[str, Any]) -> None:
    """The columns say what the record says."""
    assert row["id"] == record["id"] and row["source_id"] == record["source_id"]
    assert row["track_id"] == record["track_id"] and row["rank"] == record["rank"]
    assert row["person_id"] is None and row["person_name"] is None
    assert [row[f"box_{side}"] for side in ("x1", "y1", "x2", "y2")] == record["box"]
    assert [row["left_eye_x"], row["left_eye_y"]] == record["landmarks"][0]
    assert [row["mouth_right_x"], row["mouth_right_y"]] == record["landmarks"][4]
    assert row["pts_seconds"] == record["pts_seconds"] and row["frame_index"] == 10
    assert row["serfiq_scalar"] == 91.0 and row["serfiq_status"] == "ok"
    assert row["ifqa_scalar"] is None and row["ifqa_status"] == "not_scored"
    assert row["pose_pitch"] == -2.0 and row["gate_passed"] is True and row["upscaled"] is None
    assert row["track_frames_seen"] == 50


def test_pyarrow_reads_the_parquet_file(results: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet is written with pyarrow")
    assert write_parquet(RunFolder(results), tmp_path / "faces.parquet") == 6
    table = pq.read_table(tmp_path / "faces.parquet")
    assert table.column_names == [column.name for column in columns_of()]
    assert str(table.schema.field("quality").type) == "double" and str(table.schema.field("rank").type) == "int64"
    for row, record in zip(table.to_pylist(), lines(results / "faces.jsonl"), strict=True):
        check_row(row, record)
        assert row["gate_reasons"] == [] and row["image"] == record["image"]


def test_csv_reads_the_csv_file(results: Path, tmp_path: Path) -> None:
    assert write_csv(RunFolder(results), tmp_path / "faces.csv") == 6
    with open(tmp_path / "faces.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    records = lines(results / "faces.jsonl")
    assert [row["id"] for row in rows] == [record["id"] for record in records]
    assert [float(row["quality"]) for row in rows] == [record["quality"] for record in records]
    assert rows[0]["person_id"] == "" and rows[0]["gate_passed"] == "True"


def test_datasets_reads_the_imagefolder(results: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the imagefolder is read with Hugging Face datasets")
    assert write_imagefolder(RunFolder(results), tmp_path / "faces") == 6
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "faces"), split="train", cache_dir=str(tmp_path / "cache")
    )
    records = {record["id"]: record for record in lines(results / "faces.jsonl")}
    assert sorted(loaded["id"]) == sorted(records)
    for row in loaded:
        record = records[row["id"]]
        check_row(row, record)
        assert np.array_equal(np.asarray(row["image"].convert("RGB")), pixels(results / record["image"]))


def test_sources_called_like_splits_stay_in_one_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the imagefolder is read with Hugging Face datasets")
    make = Make()
    with DiskSink(tmp_path / "out", make.run()) as sink:
        for name in ("plain", "screen_tests_test", "val", "train", "dev.1", "latest"):
            writer = sink.open_source(make.source(name))
            make.fill(writer, name)
            writer.commit(make.result(name))
        sink.finish([], {})
    results = RunFolder(tmp_path / "out")
    count = write_imagefolder(results, tmp_path / "faces")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "faces"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    records = {record["id"]: record for record in results.faces()}
    assert sorted(loaded["train"]["id"]) == sorted(records) and len(records) == count == 18
    for row in loaded["train"]:
        expected = pixels(tmp_path / "out" / records[row["id"]]["image"])
        assert np.array_equal(np.asarray(row["image"].convert("RGB")), expected)


def test_webdataset_reads_the_shards(results: Path, tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset", reason="the shards are read with webdataset")
    write_webdataset(RunFolder(results), tmp_path / "shards", shard_bytes=60_000)
    shards = sorted(tmp_path.glob("shards/*.tar"))
    assert len(shards) > 1 and shards[0].name == "faces-000000.tar"
    assert all(shard.stat().st_size <= 60_000 for shard in shards)
    samples = list(wds.WebDataset([str(shard) for shard in shards], shardshuffle=False).decode("rgb8"))
    records = lines(results / "faces.jsonl")
    assert [sample["json"] for sample in samples] == records
    for sample, record in zip(samples, records, strict=True):
        assert sample["__key__"] == record["image"].removesuffix(".png")
        assert np.array_equal(sample["png"], pixels(results / record["image"]))


@pytest.fixture(scope="module")
def with_crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two faces as JPEG with an ArcFace crop beside each."""
    make = Make()
    out = tmp_path_factory.mktemp("crops") / "out"
    with DiskSink(out, make.run()) as sink:
        writer = sink.open_source(make.source("studio"))
        for track_id in (1, 2):
            small = Crop(make.shot("studio", track_id, size=32).image, encoding=Encoding("jpeg", 90))
            shot = dataclasses.replace(
                make.shot("studio", track_id), encoding=Encoding("jpeg", 90), crops={"arcface": small}
            )
            writer.track(dataclasses.replace(make.ended("studio", track_id), shots=(shot,)))
        writer.commit(make.result("studio"))
        sink.finish([], {})
    return out


def test_datasets_reads_further_crops_as_a_column_of_pictures(with_crops: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the imagefolder is read with Hugging Face datasets")
    assert write_imagefolder(RunFolder(with_crops), tmp_path / "faces") == 2
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "faces"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 2
    for row in loaded:
        assert row["image"].size == (64, 64) and row["arcface"].size == (32, 32)


def test_webdataset_reads_further_crops_as_fields(with_crops: Path, tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset", reason="the shards are read with webdataset")
    write_webdataset(RunFolder(with_crops), tmp_path / "shards")
    (shard,) = tmp_path.glob("shards/*.tar")
    samples = list(wds.WebDataset([str(shard)], shardshuffle=False).decode("rgb8"))
    assert [sorted(key for key in sample if not key.startswith("__")) for sample in samples] == [
        ["arcface.jpg", "jpg", "json"]
    ] * 2
    assert samples[0]["arcface.jpg"].shape == (32, 32, 3) and samples[0]["jpg"].shape == (64, 64, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_results_give_the_same_bytes(kind: str, results: Path, tmp_path: Path) -> None:
    needs(kind)
    for name in ("one", "two"):
        KINDS[kind](RunFolder(results), tmp_path / name)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_is_replaced_only_when_asked_and_only_by_its_own_kind(
    kind: str, results: Path, tmp_path: Path
) -> None:
    needs(kind)
    opened, target = RunFolder(results), tmp_path / "target"
    KINDS[kind](opened, target)
    before = tree(target)
    with pytest.raises(UsageError, match="--overwrite"):
        KINDS[kind](opened, target)
    KINDS[kind](opened, target, overwrite=True)
    assert tree(target) == before
    assert list(tmp_path.iterdir()) == [target], "nothing temporary is left"


@pytest.mark.parametrize("kind", KINDS)
def test_what_others_made_is_never_replaced(kind: str, results: Path, tmp_path: Path) -> None:
    needs(kind)
    opened, target = RunFolder(results), tmp_path / "target"
    if kind in ("csv", "parquet"):
        target.write_text("name,age\nann,7\n")
        before = target.read_bytes()
        with pytest.raises(UsageError, match="was not written by"):
            KINDS[kind](opened, target, overwrite=True)
        assert target.read_bytes() == before
        return
    KINDS[kind](opened, target)
    (target / "labels.txt").write_text("by hand")
    with pytest.raises(UsageError, match=r"labels\.txt"):
        KINDS[kind](opened, target, overwrite=True)
    assert (target / "labels.txt").read_text() == "by hand"


def test_a_missing_crop_is_named_and_leaves_nothing_half_done(results: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(results, copy)
    image = lines(copy / "faces.jsonl")[3]["image"]
    (copy / image).unlink()
    for kind in ("imagefolder", "webdataset"):
        source = image.split("/")[0]
        with pytest.raises(ResultsError, match=rf"{image}.*remove the folder .*{source} and run .*--resume"):
            KINDS[kind](RunFolder(copy), tmp_path / kind)
        assert not (tmp_path / kind).exists()


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "link/secret.png"])
def test_a_record_cannot_name_a_file_outside_the_results(name: str, results: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(results, copy)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (copy / "link").symlink_to(tmp_path)
    records = lines(copy / "faces.jsonl")
    records[0]["image"] = name
    (copy / "faces.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(ResultsError, match=r"image does not have the right form|cannot be read \(is a symbolic link"):
        write_imagefolder(RunFolder(copy), tmp_path / "faces")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"schema": 1, "id": 7}', "damaged"),
        ('{"schema": 2}', "another version"),
        ('{"schema": 1, "id"', "damaged"),
        ("[" * 100_000, "damaged"),
    ],
)
def test_a_torn_or_foreign_line_is_named(line: str, what: str, results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "faces.jsonl").write_text((results / "faces.jsonl").read_text() + line + "\n")
    with pytest.raises(ResultsError, match=what):
        write_csv(RunFolder(out), tmp_path / "faces.csv")
    assert not (tmp_path / "faces.csv").exists()


def test_a_figure_of_the_wrong_kind_is_named(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    record = lines(results / "faces.jsonl")[0] | {"quality": "very good"}
    (out / "faces.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(ResultsError, match="quality is not a number"):
        write_csv(RunFolder(out), tmp_path / "faces.csv")


def test_the_command_writes_into_exports_and_run_overwrite_takes_them_along(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(results, out)
    done = streamgate("export", out, "--to", "csv", "--to", "webdataset")
    assert done.code == 0 and "6 faces in" in done.err
    assert (out / "exports" / "faces.csv").is_file()
    with tarfile.open(out / "exports" / "webdataset" / "faces-000000.tar") as shard:
        assert len(shard.getnames()) == 12
    manifest = json.loads((out / ".streamgate" / "manifest.json").read_text())
    assert "exports/faces.csv" in manifest["files"]
    assert "exports/webdataset/faces-000000.tar" in manifest["files"]
    assert streamgate("export", out, "--to", "csv").code == 2
    assert streamgate("export", out, "--to", "csv", "--overwrite").code == 0


def test_a_folder_without_results_is_no_input(tmp_path: Path) -> None:
    done = streamgate("export", tmp_path, "--to", "csv")
    assert done.code == 3 and "contains no results of `streamgate run`" in done.err
    done = streamgate("export", tmp_path / "nowhere", "--to", "csv")
    assert done.code == 3 and "no such folder" in done.err


def test_a_parquet_file_with_images_opens_as_pictures(results: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="read with Hugging Face datasets")
    pytest.importorskip("pyarrow", reason="Parquet is written with pyarrow")
    done = streamgate("export", results, "--to", "parquet", "--images", "-o", tmp_path / "faces.parquet")
    assert done.code == 0, done.err
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "faces.parquet"), split="train", cache_dir=tmp_path / "cache"
    )
    assert isinstance(loaded.features["image"], datasets.Image)
    for row, record in zip(loaded, lines(results / "faces.jsonl"), strict=True):
        assert np.array_equal(np.asarray(row["image"].convert("RGB")), pixels(results / record["image"]))
        assert row["id"] == record["id"] and row["gate_reasons"] == [] and row["image_frame"] is None
    assert streamgate("export", results, "--to", "csv", "--images").code == 2
