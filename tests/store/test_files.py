"""Atomic writes, the lock and the sorter."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from streamgate.errors import SinkError
from streamgate.store import files
from streamgate.store.layout import STATE_DIR
from streamgate.store.lock import Lock
from streamgate.store.sorter import KeyedSorter


def test_a_failing_write_keeps_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_text(tmp_path, "a.json", "old")
    with pytest.raises(RuntimeError), files.atomic_writer(tmp_path, "a.json") as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_written_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        files.write_bytes(tmp_path, "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_leftover_or_planted_temporary_file_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("keep")
    (tmp_path / ".a.tmp").symlink_to(tmp_path / "theirs")
    files.write_text(tmp_path, "a", "new")
    assert (tmp_path / "theirs").read_text() == "keep" and (tmp_path / "a").read_text() == "new"


def test_appending_closes_off_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"torn')
    files.append_line(tmp_path, "log", "whole")
    assert path.read_text().splitlines() == ['{"torn', "whole"]


def test_the_error_of_a_write_names_the_path_and_the_remedy() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full does not exist")
    path = Path("/dev/full")
    with (
        pytest.raises(SinkError, match=r"cannot write /dev/full: no space left on the disk; free some"),
        files.sink_errors(path),
        open(path, "wb") as file,
    ):
        file.write(b"x")


def test_the_lock_frees_when_released(tmp_path: Path) -> None:
    (tmp_path / STATE_DIR).mkdir()
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.acquire()
    with pytest.raises(SinkError, match=f"process {os.getpid()}"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_the_sorter_gives_back_in_key_order_past_its_memory(tmp_path: Path) -> None:
    sorter = KeyedSorter(tmp_path)
    items = {(track, rank): bytes([track, rank]) * 300_000 for track in (3, 1, 2) for rank in (2, 1)}
    for key, data in items.items():
        sorter.put(key, data)
    assert list(sorter.in_order()) == [items[key] for key in sorted(items)]
    assert len(sorter) == 6 and os.listdir(tmp_path) == []
    sorter.close()
    sorter.close()
