"""The folder of live faces: what is written, and what goes when there is too much."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamgate.errors import SinkError
from streamgate.service.live_folder import LiveFolder
from streamgate.store.records import face_record
from streamgate.tracks import BestShot

MOMENT = datetime(2026, 3, 4, 23, 59, 59, tzinfo=UTC)


def shot_of(make, track_id: int, moment: datetime = MOMENT, name: str = "door") -> BestShot:
    made = make.shot("x", track_id)
    return replace(made, source_id=name, epoch="e1", captured_at=moment)


def write(folder: LiveFolder, shot: BestShot) -> None:
    folder.write(shot, face_record(shot, folder.relative_path(shot)))


def images(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))


def test_a_face_lies_under_its_stream_and_day_with_its_record(tmp_path: Path, make):
    shot = shot_of(make, 7)
    with LiveFolder(tmp_path) as folder:
        write(folder, shot)
    (record,) = [json.loads(line) for line in (tmp_path / "door/2026-03-04/faces.jsonl").read_text().splitlines()]
    assert record["image"] == "door/2026-03-04/e1/track_0007/1.png"
    stored = cv2.imread(str(tmp_path / record["image"]))[..., ::-1]
    assert np.array_equal(stored, shot.image)


def test_beyond_the_size_the_oldest_go_and_their_records_with_the_last_of_a_day(tmp_path: Path, make):
    first_day = datetime(2026, 3, 3, 12, tzinfo=UTC)
    shots = [shot_of(make, number, first_day if number < 3 else MOMENT) for number in range(8)]
    with LiveFolder(tmp_path) as folder:
        for shot in shots:
            write(folder, shot)
        whole = folder.size
    assert len(images(tmp_path)) == 8
    with LiveFolder(tmp_path, max_bytes=whole // 2) as folder:
        assert folder.size <= whole // 2
        left = images(tmp_path)
        assert left == images(tmp_path)[-len(left) :] and 3 <= len(left) <= 4
        assert folder.removed == 8 - len(left)
        assert not (tmp_path / "door/2026-03-03").exists()
        write(folder, shot_of(make, 20))
        assert folder.size <= whole // 2
        assert "door/2026-03-04/e1/track_0020/1.png" in images(tmp_path)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "door").rglob("*") if path.is_file())
    assert on_disk <= whole // 2


def test_what_is_too_old_goes(tmp_path: Path, make):
    with LiveFolder(tmp_path) as folder:
        write(folder, shot_of(make, 1))
        write(folder, shot_of(make, 2))
    old = time.time() - 3 * 86400
    os.utime(tmp_path / "door/2026-03-04/e1/track_0001/1.png", (old, old))
    with LiveFolder(tmp_path, max_days=2) as folder:
        assert images(tmp_path) == ["door/2026-03-04/e1/track_0002/1.png"]
        assert folder.removed == 1


def test_files_of_others_are_left_alone(tmp_path: Path, make):
    mine = tmp_path / "holiday" / "2020-01-01" / "beach.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"x" * 100_000)
    with LiveFolder(tmp_path, max_days=0.00001, max_bytes=1) as folder:
        write(folder, shot_of(make, 1))
        write(folder, shot_of(make, 2))
    assert mine.exists()


@pytest.mark.parametrize("linked", ["door", "door/2026-03-04", "door/2026-03-04/e1", "door/2026-03-04/e1/track_0001"])
def test_nothing_behind_a_link_is_removed_or_written(linked: str, tmp_path: Path, make):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    with LiveFolder(out) as folder:
        write(folder, shot_of(make, 1))
    (out / linked).rename(elsewhere)
    (out / linked).symlink_to(elsewhere)
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    with LiveFolder(out, max_days=0.0, max_bytes=0) as folder:
        assert folder.removed == 0
        with pytest.raises(SinkError, match="symbolic link"):
            write(folder, shot_of(make, 1))
    assert before and {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before


def test_a_folder_in_use_or_with_results_of_run_is_refused(tmp_path: Path):
    with LiveFolder(tmp_path), pytest.raises(SinkError, match="in use"):
        LiveFolder(tmp_path).__enter__()
    (tmp_path / ".streamgate" / "manifest.json").write_text("{}")
    with pytest.raises(SinkError, match="run"):
        LiveFolder(tmp_path).__enter__()
