"""The disk sink: layout, nothing half-written, equal bytes, and other people's files left alone."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from streamgate.errors import SinkError, SourceError, UsageError
from streamgate.sinks.disk import DiskSink
from streamgate.store import files
from streamgate.store.layout import STATE_DIR
from streamgate.store.lock import Lock
from streamgate.store.manifest import Manifest
from streamgate.store.run import SourceInfo

if TYPE_CHECKING:
    from support.sink_values import Make


def write_run(out: Path, make: Make, names: list[str], **options: bool) -> None:
    with DiskSink(out, make.run(), **options) as sink:
        results = []
        for name in names:
            writer = sink.open_source(make.source(name))
            make.fill(writer, name)
            results.append(make.result(name, timing={"wall": 1.0}))
            writer.commit(results[-1])
        sink.finish(results, {"wall": 3.0})


def tree(out: Path) -> dict[str, str]:
    """Hash of every file; `timing` taken out."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_dir() or path.name == "lock":
            continue
        data = path.read_bytes()
        if path.name in ("summary.json", "source.json"):
            record = json.loads(data)
            del record["timing"]
            data = json.dumps(record).encode()
        found[str(path.relative_to(out))] = hashlib.sha256(data).hexdigest()
    return found


def visible(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.name != ".streamgate")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_layout_of_a_run(tmp_path: Path, make: Make) -> None:
    out = tmp_path / "new" / "out"
    write_run(out, make, ["b", "a"])
    assert visible(out) == ["a-0a1b2c3d", "b-0a1b2c3d", "faces.jsonl", "summary.json"]
    folder = out / "a-0a1b2c3d"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "candidates.jsonl.gz", "faces.jsonl", "source.json", "track_0001/1.png", "track_0002/1.png",
        "track_0002/2.png", "tracks.jsonl",
    ]  # fmt: skip
    faces = lines(out / "faces.jsonl")
    assert [(face["source_id"][0], face["track_id"], face["rank"]) for face in faces] == [
        ("a", 1, 1), ("a", 2, 1), ("a", 2, 2), ("b", 1, 1), ("b", 2, 1), ("b", 2, 2),
    ]  # fmt: skip
    for face in faces:
        stored = cv2.cvtColor(cv2.imread(str(out / face["image"])), cv2.COLOR_BGR2RGB)
        assert np.array_equal(stored, make.shot("a", face["track_id"], face["rank"]).image)
    tracks = lines(folder / "tracks.jsonl")
    assert [(track["track_id"], track["kept"]) for track in tracks] == [(1, 1), (2, 2), (3, 0)]
    assert tracks[2]["reasons"] == ["yaw"] and tracks[2]["rejected"] == {"blurred": 2, "yaw": 4}
    assert not (out / ".streamgate" / "staging").exists()
    assert not list(out.rglob("*.tmp"))


def test_candidates_are_streamed_in_a_gzip_without_time_or_name(tmp_path: Path, make: Make) -> None:
    write_run(tmp_path, make, ["a"])
    data = (tmp_path / "a-0a1b2c3d" / "candidates.jsonl.gz").read_bytes()
    assert data[3:8] == b"\0\0\0\0\0"  # no flags (no name), no modification time
    records = [json.loads(line) for line in gzip.decompress(data).splitlines()]
    assert [record["track_id"] for record in records] == [1, 2, 3, 1, 2]
    assert records[0]["evidence"]["mean_luma"] == 120.0


def test_candidates_can_be_left_out(tmp_path: Path, make: Make) -> None:
    write_run(tmp_path, make, ["a"], candidates=False)
    assert not (tmp_path / "a-0a1b2c3d" / "candidates.jsonl.gz").exists()


def test_summary_names_sources_failures_and_what_the_run_was(tmp_path: Path, make: Make) -> None:
    with DiskSink(tmp_path, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        make.fill(writer, "a")
        done, failed = (
            make.result("a"),
            make.result("broken", status="failed", error="no video in it", kept=0),
        )
        writer.commit(done)
        sink.open_source(make.source("broken")).discard()
        sink.finish([failed, done], {"wall": 3.0})
    text = (tmp_path / "summary.json").read_text()
    summary = json.loads(text)
    assert [(source["source_id"], source["status"]) for source in summary["sources"]] == [
        ("a-0a1b2c3d", "done"),
        ("broken-0a1b2c3d", "failed"),
    ]
    assert summary["sources"][1]["error"] == "no video in it" and summary["complete"] is True
    assert summary["weights"][0]["sha256"] == "ab" * 32
    assert summary["absent_measures"] == {"ifqa": "no_weights"}
    assert "pw12345" not in text and "pw12345" not in (tmp_path / ".streamgate/manifest.json").read_text()
    assert visible(tmp_path) == ["a-0a1b2c3d", "faces.jsonl", "summary.json"]


def test_a_source_that_keeps_nothing_still_says_so(tmp_path: Path, make: Make) -> None:
    with DiskSink(tmp_path, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        writer.evaluated(make.candidate(1, 0.0))
        writer.commit(make.result("a", kept=0))
        sink.finish([make.result("a", kept=0)], {})
    assert (tmp_path / "faces.jsonl").read_bytes() == b""
    assert visible(tmp_path / "a-0a1b2c3d") == [
        "candidates.jsonl.gz", "faces.jsonl", "source.json", "tracks.jsonl",
    ]  # fmt: skip


def test_nothing_has_its_final_name_before_commit(tmp_path: Path, make: Make) -> None:
    with DiskSink(tmp_path, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        make.fill(writer, "a")
        assert visible(tmp_path) == []
        writer.discard()
        writer.discard()
        assert not (tmp_path / ".streamgate/staging/a-0a1b2c3d").exists()
    assert visible(tmp_path) == []


def test_bytes_do_not_depend_on_the_order_of_threads(tmp_path: Path, make: Make) -> None:
    names = ["a", "b", "c", "d"]
    write_run(tmp_path / "one", make, names)
    with DiskSink(tmp_path / "two", make.run()) as sink:

        def work(mine: list[str], first: threading.Event | None, then: threading.Event) -> None:
            for name in mine:
                writer = sink.open_source(make.source(name))
                make.fill(writer, name)
                if first:
                    first.wait(10)
                writer.commit(make.result(name, timing={"wall": 9.0}))
            then.set()

        late, early = threading.Event(), threading.Event()
        threads = [
            threading.Thread(target=work, args=(["a", "b"], early, late)),
            threading.Thread(target=work, args=(["d", "c"], None, early)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sink.finish([make.result(name) for name in reversed(names)], {"wall": 7.0})
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    first, second = (tmp_path / side / "faces.jsonl" for side in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_a_second_run_on_the_same_folder_is_locked_out(tmp_path: Path, make: Make) -> None:
    with DiskSink(tmp_path, make.run()):
        code = (
            "import sys; from pathlib import Path; from streamgate.store.run import RunInfo\n"
            "from streamgate.sinks.disk import DiskSink\n"
            "try: DiskSink(Path(sys.argv[1]), RunInfo({}, (), {}, '', (), {})).__enter__()\n"
            "except Exception as e: print(e); sys.exit(e.exit_code)"
        )
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert other.returncode == 5 and "in use by another run" in other.stdout and "-o" in other.stdout
    write_run(tmp_path, make, ["a"])


def test_results_are_not_replaced_without_being_asked(tmp_path: Path, make: Make) -> None:
    write_run(tmp_path, make, ["a"])
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=r"--overwrite.*-o"), DiskSink(tmp_path, make.run()):
        pass
    assert tree(tmp_path) == before


def test_overwrite_removes_what_the_manifest_lists_and_nothing_else(tmp_path: Path, make: Make) -> None:
    write_run(tmp_path, make, ["a", "b"])
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "b-0a1b2c3d" / "track_0001" / "mine.txt").write_text("mine too")
    write_run(tmp_path, make, ["c"], overwrite=True)
    assert visible(tmp_path) == ["b-0a1b2c3d", "c-0a1b2c3d", "faces.jsonl", "notes.txt", "summary.json"]
    left = [path for path in (tmp_path / "b-0a1b2c3d").rglob("*") if path.is_file()]
    assert [path.read_text() for path in left] == ["mine too"]
    assert {face["source_id"] for face in lines(tmp_path / "faces.jsonl")} == {"c-0a1b2c3d"}
    # The same source again meets the user's file: refused, not mixed and not deleted.
    with (
        pytest.raises(SinkError, match="does not belong to this run"),
        DiskSink(tmp_path, make.run(), overwrite=True) as sink,
    ):
        sink.open_source(make.source("b"))


def test_a_source_removed_by_half_no_longer_counts(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, make, ["a"])
    unlink, calls = os.unlink, []

    def dies_after_four(name: str, **folder: int) -> None:
        calls.append(name)
        if len(calls) > 4:
            raise KeyboardInterrupt
        unlink(name, **folder)

    monkeypatch.setattr(files.os, "unlink", dies_after_four)
    with pytest.raises(KeyboardInterrupt), DiskSink(tmp_path, make.run(), overwrite=True) as sink:
        sink.open_source(make.source("b"))
    monkeypatch.undo()
    assert (tmp_path / "a-0a1b2c3d").exists() and Manifest.read(tmp_path).present() == []
    write_run(tmp_path, make, ["b"])
    assert visible(tmp_path) == ["b-0a1b2c3d", "faces.jsonl", "summary.json"]


def test_overwrite_keeps_old_results_when_no_source_opens(tmp_path: Path, make: Make) -> None:
    write_run(tmp_path, make, ["a"])
    before = tree(tmp_path)
    with DiskSink(tmp_path, make.run(), overwrite=True) as sink:
        sink.finish([make.result("missing", status="failed", error="no such file")], {})
    assert tree(tmp_path) == before


def test_a_run_in_which_all_failed_does_not_block_the_next(tmp_path: Path, make: Make) -> None:
    with DiskSink(tmp_path, make.run()) as sink:
        sink.finish([make.result("missing", status="failed", error="no such file")], {})
    assert json.loads((tmp_path / "summary.json").read_text())["totals"]["sources"] == {"failed": 1}
    write_run(tmp_path, make, ["a"])
    assert len(lines(tmp_path / "faces.jsonl")) == 3


def test_a_manifest_cannot_lead_removal_outside(tmp_path: Path, make: Make) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("x")
    write_run(out, make, ["a"])
    (out / "link").symlink_to(other)
    path = out / ".streamgate/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] += ["../other/precious.txt", str(other / "precious.txt"), "link/precious.txt"]
    path.write_text(json.dumps(manifest))
    write_run(out, make, ["a"], overwrite=True)
    assert (other / "precious.txt").exists() and (out / "link").is_symlink()


@pytest.mark.parametrize("name", ["faces.jsonl", "summary.json"])
def test_a_foreign_file_of_our_name_is_never_replaced(tmp_path: Path, make: Make, name: str) -> None:
    (tmp_path / name).write_text("theirs")
    with (
        pytest.raises(SinkError, match="not written by streamgate"),
        DiskSink(tmp_path, make.run(), overwrite=True),
    ):
        pass
    assert (tmp_path / name).read_text() == "theirs"


def test_an_interrupted_run_keeps_what_was_committed(tmp_path: Path, make: Make) -> None:
    with pytest.raises(KeyboardInterrupt), DiskSink(tmp_path, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        make.fill(writer, "a")
        writer.commit(make.result("a"))
        make.fill(sink.open_source(make.source("b")), "b")
        raise KeyboardInterrupt
    assert visible(tmp_path) == ["a-0a1b2c3d", "faces.jsonl", "summary.json"]
    assert len(lines(tmp_path / "faces.jsonl")) == 3
    assert json.loads((tmp_path / "summary.json").read_text())["complete"] is False


def test_what_a_killed_run_left_is_cleared_and_its_commits_are_known(tmp_path: Path, make: Make) -> None:
    # A run that is killed neither derives nor cleans up: that is a sink which is entered and never left.
    sink = DiskSink(tmp_path, make.run())
    sink.__enter__()
    writer = sink.open_source(make.source("a"))
    make.fill(writer, "a")
    writer.commit(make.result("a"))
    make.fill(sink.open_source(make.source("b")), "b")
    with (tmp_path / ".streamgate/commits.jsonl").open("a") as file:
        file.write('{"source_id": "torn')
    sink._lock.release()  # as the system does
    assert Manifest.read(tmp_path).present() == ["a-0a1b2c3d"]
    with pytest.raises(UsageError), DiskSink(tmp_path, make.run()):
        pass
    assert not (tmp_path / ".streamgate/staging").exists()
    write_run(tmp_path, make, ["b"], overwrite=True)
    assert visible(tmp_path) == ["b-0a1b2c3d", "faces.jsonl", "summary.json"]


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with DiskSink(tmp_path, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        make.fill(writer, "a")
        monkeypatch.setattr(files, "sync_tree", full)
        with pytest.raises(SinkError, match="no space left on the disk; free some") as caught:
            writer.commit(make.result("a"))
        writer.discard()
    assert (
        caught.value.exit_code == 5 and str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    )
    assert visible(tmp_path) == []


def test_a_truly_full_disk(tmp_path: Path, make: Make) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        with DiskSink(small / "out", make.run()) as sink:
            writer = sink.open_source(make.source("a"))
            with pytest.raises(SinkError, match="no space left on the disk"):
                for track_id in range(100):
                    writer.track(make.ended("a", track_id))
            writer.discard()
            assert visible(small / "out") == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_failed_rename_leaves_no_source(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DiskSink(tmp_path, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        make.fill(writer, "a")
        (tmp_path / "a-0a1b2c3d").mkdir()
        (tmp_path / "a-0a1b2c3d" / "theirs").write_text("x")
        with pytest.raises(SinkError, match="a-0a1b2c3d"):
            writer.commit(make.result("a"))
        writer.discard()
        sink.finish([], {})
    assert visible(tmp_path / "a-0a1b2c3d") == ["theirs"]


def test_a_file_in_place_of_the_folder(tmp_path: Path, make: Make) -> None:
    (tmp_path / "out").write_text("x")
    for out in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with (
            pytest.raises(SinkError, match="is a file where a folder is needed") as caught,
            DiskSink(out, make.run()),
        ):
            pass
        assert caught.value.exit_code == 5
    assert (tmp_path / "out").read_text() == "x"


def test_a_folder_that_cannot_be_written(make: Make) -> None:
    with (
        pytest.raises(SinkError, match=r"cannot write /proc/[^:]*: .*choose another folder"),
        DiskSink(Path("/proc/streamgate"), make.run()),
    ):
        pass


@pytest.mark.parametrize(
    "source_id", ["", ".", "..", "a/b", "..\\b", "x\ny", ".streamgate", "faces.jsonl", "a" * 300]
)
def test_source_ids_that_lead_elsewhere_are_refused(tmp_path: Path, make: Make, source_id: str) -> None:
    with DiskSink(tmp_path, make.run()) as sink, pytest.raises(SinkError, match="source id"):
        sink.open_source(SourceInfo("x", source_id))


def test_the_same_source_twice_is_that_sources_error(tmp_path: Path, make: Make) -> None:
    with DiskSink(tmp_path, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        with pytest.raises(SourceError, match="given twice"):
            sink.open_source(make.source("a"))
        writer.commit(make.result("a"))
        with pytest.raises(SourceError, match="given twice"):
            sink.open_source(make.source("a"))
        sink.finish([make.result("a")], {})


def test_unicode_names(tmp_path: Path, make: Make) -> None:
    write_run(tmp_path / "Ausgabe ✨", make, ["straße"])
    (face, *_) = lines(tmp_path / "Ausgabe ✨" / "faces.jsonl")
    assert face["source"] == "in/straße.mp4"
    assert (tmp_path / "Ausgabe ✨" / face["image"]).is_file()


def test_a_run_that_cannot_be_described_fails_before_work(tmp_path: Path, make: Make) -> None:
    with pytest.raises(TypeError), DiskSink(tmp_path, make.run(config={"x": object()})) as sink:
        sink.open_source(make.source("a"))
    assert visible(tmp_path) == []


def test_a_lock_that_only_a_dying_process_holds_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / STATE_DIR).mkdir()
    # A shell that takes the lock for a process that has ended, and ends a little later itself.
    ended = subprocess.Popen(["true"])
    ended.wait()
    code = (
        "import sys, time; from pathlib import Path; from streamgate.store.lock import Lock\n"
        "Lock(Path(sys.argv[1]), holder=int(sys.argv[2])).acquire(); print(flush=True); time.sleep(1)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(ended.pid)], stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    lock = Lock(tmp_path)
    lock.acquire()
    assert holder.wait() == 0
    shared = Lock.held(tmp_path, os.dup(lock.fileno()))
    lock.release()
    with pytest.raises(SinkError, match=f"process {os.getpid()}"):
        Lock(tmp_path).acquire()
    shared.release()
    Lock(tmp_path).acquire()


def test_resuming_clears_away_what_was_listed_and_is_not_there(tmp_path: Path, make: Make) -> None:
    write_run(tmp_path, make, ["a", "b"])
    (tmp_path / "a-0a1b2c3d" / "source.json").unlink()  # as a removal that was cut off begins
    with DiskSink(tmp_path, make.run(), resume=True) as sink:
        assert sink.done("a-0a1b2c3d") is None
        result = sink.done("b-0a1b2c3d")
        assert result is not None and result.frames == 50 and result.source.location == "in/b.mp4"
        sink.finish([], {})
    assert visible(tmp_path) == ["b-0a1b2c3d", "faces.jsonl", "summary.json"]
    assert Manifest.read(tmp_path).present() == ["b-0a1b2c3d"]


def test_resuming_knows_what_was_under_way(tmp_path: Path, make: Make) -> None:
    sink = DiskSink(tmp_path, make.run())
    sink.__enter__()
    make.fill(sink.open_source(make.source("a")), "a")
    sink._lock.release()  # as the system does
    with DiskSink(tmp_path, make.run(), resume=True) as sink:
        assert sink.unfinished == {"a-0a1b2c3d"}
    assert not (tmp_path / ".streamgate" / "staging").exists()


def test_a_manifest_cannot_lead_reading_outside(tmp_path: Path, make: Make) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    write_run(other, make, ["x"])
    write_run(out, make, ["a"])
    path = out / ".streamgate/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sources"]["../other/x-0a1b2c3d"] = ["source.json", "faces.jsonl"]
    path.write_text(json.dumps(manifest))
    with DiskSink(out, make.run(), resume=True) as sink:
        sink.finish([], {})
    assert {face["source_id"] for face in lines(out / "faces.jsonl")} == {"a-0a1b2c3d"}
    assert (other / "x-0a1b2c3d" / "source.json").exists()


def test_differences_between_runs_are_named(make: Make) -> None:
    from streamgate.store.manifest import differences, run_record

    record = json.loads(json.dumps(run_record(make.run())))
    assert differences(record, run_record(make.run())) == []
    assert differences(record, run_record(make.run(config={"keep": {"top_k": 2}}))) == [
        "keep.top_k (1, now 2)", 'note ("rtsp://***@cam/1", now unset)',
    ]  # fmt: skip
    assert differences(record, run_record(make.run(calibration_id="cal-2"))) == [
        'calibration_id ("cal-1", now "cal-2")'
    ]
    weights = ({"role": "detector", "sha256": "cd" * 32},)
    assert differences(record, run_record(make.run(weights=weights))) == [
        "the weights of the detector (sha256 abababababab, now cdcdcdcdcdcd)"
    ]
    # Whatever somebody wrote there, it is no traceback.
    for odd in ({}, {"config": 3, "weights": [1, {}]}, {"config": [], "weights": {}}):
        assert differences(odd, run_record(make.run()))
