"""Footage from an object store and exports into one, against a server of this machine that also fails."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamgate.store.layout import RECEIPT
from support.command import Done, inside, lines, streamgate
from support.media import astronaut_frames, write_clip
from support.object_store import KEY, SECRET, Faults, Store, object_store

pytest.importorskip("s3fs", reason="needs s3fs: pip install 'streamgate[cloud]'")
pytest.importorskip("moto", reason="moto[server] is the local S3 server")
pytest.importorskip("flask", reason="moto[server] is the local S3 server")

FAST = ("--set", "output.size=128", "--device", "cpu")
MIB = 1 << 20
PATIENT = {"STREAMGATE_STALL_S": "30"}


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, one of some MiB, and two pictures."""
    folder = tmp_path_factory.mktemp("footage") / "set"
    (folder / "day 2").mkdir(parents=True)
    write_clip(folder / "small.mp4", astronaut_frames(20, (320, 240), zoom=1.6))
    write_clip(folder / "day 2" / "large.mkv", grainy(), options={"crf": "8", "preset": "ultrafast"})
    assert (folder / "day 2" / "large.mkv").stat().st_size > 11 * MIB
    for number, frame in enumerate(astronaut_frames(2, (320, 240), step=9.0, zoom=1.6)):
        cv2.imwrite(str(folder / f"{number}.png"), np.ascontiguousarray(frame[..., ::-1]))
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.mp4").write_bytes(b"x")
    return folder


def grainy() -> Iterator[Any]:
    """Frames of a face with grain, which take room."""
    noise = np.random.default_rng(1)
    for frame in astronaut_frames(60, (640, 480), step=0.2, zoom=1.6):
        grain = noise.integers(-12, 13, frame.shape)
        yield np.clip(frame.astype(int) + grain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def store(footage: Path) -> Iterator[Store]:
    with object_store("footage", "results") as started:
        for path in footage.rglob("*"):
            if path.is_file():
                started.put("footage", f"set/{path.relative_to(footage).as_posix()}", path)
        yield started


@pytest.fixture(autouse=True)
def no_faults(store: Store) -> None:
    store.faults.__dict__.update(Faults().__dict__)


def run(store: Store, *arguments: object, **environment: str) -> Done:
    done = streamgate("run", *arguments, *FAST, **{**store.environment, **environment})
    assert "Qx7zQx7" not in done.out + done.err
    return done


def written(out: Path) -> str:
    return "\n".join(path.read_bytes().decode("latin-1") for path in out.rglob("*") if path.is_file())


def results(out: Path) -> dict[str, Any]:
    """Everything but what names the place that footage came from, and what takes time."""
    found: dict[str, Any] = {}
    for path in sorted(out.glob("*/**/*")):
        name = path.relative_to(out).as_posix()
        if path.suffix in (".png", ".gz") and not name.startswith("."):
            found[name] = path.read_bytes()
    for face in lines(out / "faces.jsonl"):
        found[face["id"]] = {key: value for key, value in face.items() if key != "source"}
    return found


@pytest.fixture(scope="module")
def local(footage: Path, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "out"
    done = run(store, footage, "-o", out, "--crop", "loose")
    assert done.code == 0, done.err
    return out


def test_a_folder_in_a_bucket_gives_what_the_local_one_gives(store: Store, local: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(store, "s3://footage/set", "-o", out, "--crop", "loose")
    assert done.code == 0 and "1 .txt" in done.err, done.err
    assert results(out) == results(local) and len(lines(out / "faces.jsonl")) >= 3
    sources = {one["source"] for one in json.loads((out / "summary.json").read_text())["sources"]}
    assert sources == {"s3://footage/set", "s3://footage/set/small.mp4", "s3://footage/set/day 2/large.mkv"}
    assert "Qx7zQx7" not in written(out)
    # Each byte is asked for about once: nothing is downloaded first, or again by each of those who look into a file.
    for key, count in store.faults.read.items():
        if key.endswith(".mkv"):
            size = store.client.head_object(Bucket="footage", Key="set/day 2/large.mkv")["ContentLength"]
            assert count <= 2.1 * size, (key, count, size)
    again = run(store, "s3://footage/set", "-o", out, "--crop", "loose", "--resume")
    assert again.code == 0 and "3 of 3 sources are already done" in again.err, again.err


def test_patterns_single_files_and_the_web(store: Store, local: Path, tmp_path: Path) -> None:
    done = run(store, "s3://footage/*/s*.mp4", "s3://footage/set/0.png", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert {Path(face["source"]).name for face in lines(tmp_path / "out" / "faces.jsonl")} == {"small.mp4", "0.png"}
    signed = store.client.generate_presigned_url("get_object", {"Bucket": "footage", "Key": "set/small.mp4"})
    assert "Signature=" in signed and KEY in signed
    done = run(store, signed, "-o", tmp_path / "web")
    (face,) = lines(tmp_path / "web" / "faces.jsonl")
    assert done.code == 0 and face["source"].startswith("http://127.0.0.1:") and "small.mp4?" in face["source"]
    (same,) = (one for one in lines(local / "faces.jsonl") if one["source"].endswith("small.mp4"))
    assert face["id"] == same["id"] and face["measures"] == same["measures"]
    assert "Qx7zQx7" not in written(tmp_path / "web")


def test_what_cannot_be_read_is_named_and_the_rest_completes(
    store: Store, footage: Path, tmp_path: Path
) -> None:
    small = footage / "small.mp4"
    (tmp_path / "s3fs").mkdir()
    (tmp_path / "s3fs" / "__init__.py").write_text("raise ImportError('hidden')")
    hidden = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    user = f"s3://{KEY}:{SECRET}@footage/set"
    wrong = {
        "s3://footage/set/nothing.mp4": "no such bucket, folder or file",
        "s3://no-such-bucket/set": "no such bucket, folder or file",
        "s3://footage/*/nothing*.mp4": "no file matches the pattern",
        "nonsense://footage/set": "fsspec does not support nonsense://",
        user: "credentials in the URL are not supported",
    }
    cases: tuple[tuple[dict[str, str], dict[str, str]], ...] = (
        (wrong, {}),
        ({"s3://footage/set/0.png": "pip install 'streamgate[cloud]'"}, {"PYTHONPATH": hidden}),
        ({"s3://footage/set": "the store cannot be reached"}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", **PATIENT}),
    )
    for number, (given, environment) in enumerate(cases):
        out = tmp_path / f"out{number}"
        done = run(store, *given, small, "-o", out, **environment)
        assert done.code == 1, done.err
        for address, words in given.items():
            shown = address.replace(f"{KEY}:{SECRET}", "***")
            assert f"streamgate: {shown}: {words}" in done.err or f"{shown}: s3:// URLs need" in done.err, done.err
        assert len(lines(out / "faces.jsonl")) == 1 and "Qx7zQx7" not in written(out)
    store.faults.kind = "deny"
    done = run(store, "s3://footage/set", "-o", tmp_path / "denied")
    assert done.code == 3 and "access was denied (" in done.err and "check the credentials" in done.err, done.err


def test_a_connection_that_is_cut_is_made_again(store: Store, local: Path, tmp_path: Path) -> None:
    store.faults.__dict__.update(kind="cut", after=2 * MIB, times=2, key="large.mkv")
    done = run(store, "s3://footage/set", "-o", tmp_path / "out", "--crop", "loose", **PATIENT)
    assert done.code == 0 and store.faults.times == 0, done.err
    assert results(tmp_path / "out") == results(local)


@pytest.mark.parametrize("kind", ["cut", "hang", "drip"])
def test_a_store_that_fails_midway_costs_what_follows(store: Store, tmp_path: Path, kind: str) -> None:
    # Its end, which its id is made of too, can be read.
    store.faults.__dict__.update(kind=kind, after=7 * MIB, before=9 * MIB, key="large.mkv")
    out = tmp_path / "out"
    done = run(store, "s3://footage/set", "-o", out, STREAMGATE_STALL_S="5")
    sources = json.loads((out / "summary.json").read_text())["sources"]
    (broken,) = (one for one in sources if one["source"].endswith("large.mkv"))
    assert all(one["status"] == "done" for one in sources if one is not broken)
    assert broken["status"] == "done" and done.code == 0, broken
    assert broken["decode_errors"] and 0 < broken["frames"] < 60, broken
    assert "the rest of the file is skipped" in broken["error"] and "day 2/large.mkv: " in done.err, broken


def test_exports_go_to_a_bucket(
    store: Store, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)

    def export(*arguments: object) -> Done:
        done = inside("export", local, *arguments)
        assert "Qx7zQx7" not in done.out + done.err
        return done

    for kind, key in (("csv", "a/faces.csv"), ("parquet", "a/faces.parquet")):
        target = f"s3://results/{key}"
        done = export("--to", kind, "-o", target)
        if kind == "parquet" and "pyarrow" in done.err:
            continue
        assert done.code == 0 and f"faces in {target}" in done.err, done.err
        assert inside("export", local, "--to", kind, "-o", tmp_path / key).code == 0
        assert store.keys("results", key) == {key: (tmp_path / key).read_bytes()}
        done = export("--to", kind, "-o", target)
        assert done.code == 2 and f"{target} exists; give --overwrite" in done.err, done.err
        assert export("--to", kind, "-o", target, "--overwrite").code == 0
    store.client.put_object(Bucket="results", Key="mine/faces.csv", Body=b"mine")
    done = export("--to", "csv", "-o", "s3://results/mine/faces.csv", "--overwrite")
    assert done.code == 2 and "was not written by `streamgate export`" in done.err
    folder = "s3://results/set"
    assert export("--to", "webdataset", "-o", folder).code == 0
    before = store.keys("results", "set/")
    assert {name.rpartition("/")[2] for name in before} == {"faces-000000.tar", RECEIPT}
    assert export("--to", "imagefolder", "-o", folder).code == 2
    done = export("--to", "imagefolder", "-o", folder, "--overwrite")
    assert done.code == 0, done.err
    after = store.keys("results", "set/")
    assert "set/metadata.jsonl" in after and "set/faces-000000.tar" not in after
    receipt = json.loads(after[f"set/{RECEIPT}"])
    assert "complete" not in receipt
    assert {f"set/{name}" for name in receipt["files"]} == after.keys() - {f"set/{RECEIPT}"}
    store.client.put_object(Bucket="results", Key="set/mine.txt", Body=b"mine")
    done = export("--to", "webdataset", "-o", folder, "--overwrite")
    assert done.code == 2 and "set/mine.txt was not written by" in done.err
    done = export("--to", "csv", "-o", "s3://no-such-bucket/faces.csv")
    assert done.code == 5 and "no such bucket" in done.err, done.err
    done = export("--to", "csv", "-o", "rtsp://camera/faces.csv")
    assert done.code == 2 and "not an address in an object store" in done.err, done.err


def test_results_stay_on_a_file_system(store: Store, footage: Path, tmp_path: Path) -> None:
    done = run(store, footage, "-o", "s3://results/out")
    assert done.code == 2 and "s3:// is not supported here" in done.err


def test_a_run_can_be_reported_again_from_the_bucket(store: Store, footage: Path, tmp_path: Path) -> None:
    """Driving videos are cut from the footage where it is."""
    out = tmp_path / "out"
    assert run(store, "s3://footage/set/day 2/large.mkv", "-o", out).code == 0
    done = streamgate("export", out, "--to", "pairs", "--seconds", "1", **store.environment)
    assert done.code == 0 and "1 pair in" in done.err, done.err
    shutil.rmtree(out)
