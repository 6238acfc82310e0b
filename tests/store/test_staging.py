"""A tuning that breaks off at any place is either whole or not there, and is finished by whoever comes next."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamgate.errors import SinkError
from streamgate.store import files, staging
from streamgate.store.manifest import Manifest


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two committed sources, each with a file of somebody else's."""
    (tmp_path / ".streamgate").mkdir()
    for name in ("a-1", "b-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "source.json").write_text("old")
        (tmp_path / name / "notes.txt").write_text("mine")
    Manifest(tmp_path, {"digest": "old"}, (), {"a-1": ("source.json",), "b-2": ("source.json",)}).write()
    return tmp_path


def stage(out: Path) -> None:
    staging.begin(out)
    for name in ("a-1", "b-2"):
        folder = staging.add_source(out, name)
        (folder / "source.json").write_text("new")
        (folder / "more.txt").write_text("more")


TOLD = {
    "run": {"digest": "new", "config": {}}, "failed": [], "timing": {}, "complete": True,
    "info": {
        "config": {}, "measure_set": [], "absent_measures": {}, "calibration_id": "cal-1", "weights": [],
        "versions": {}, "calibration": {},
    },
}  # fmt: skip
NAMES = {"a-1": ["more.txt", "source.json"], "b-2": ["more.txt", "source.json"]}


def contents(out: Path) -> set[str]:
    return {(out / name / "source.json").read_text() for name in ("a-1", "b-2")}


def finish(out: Path) -> None:
    staging.finish(out, Manifest.read(out))
    staging.clean(out)


def test_all_of_it_is_put_in_place_and_strangers_stay(out: Path) -> None:
    stage(out)
    staging.commit(out, TOLD, NAMES)
    assert contents(out) == {"old"}
    finish(out)
    assert contents(out) == {"new"}
    assert (out / "a-1" / "notes.txt").read_text() == "mine"
    manifest = Manifest.read(out)
    assert manifest.run["digest"] == "new" and manifest.sources["b-2"] == ("more.txt", "source.json")
    assert not (out / ".streamgate" / "tune").exists()


def test_one_that_never_was_complete_is_forgotten(out: Path) -> None:
    stage(out)
    assert not staging.is_pending(out)
    staging.begin(out)
    assert contents(out) == {"old"} and list(staging.new_folder(out).iterdir()) == []


@pytest.mark.parametrize("allowed", range(4))
def test_broken_off_after_any_rename_it_is_finished_later(
    out: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    stage(out)
    staging.commit(out, TOLD, NAMES)
    rename = os.rename
    left = [None] * allowed

    def limited(old: str, new: str, **folders: int) -> None:
        if not left:
            raise OSError(5, "the power went off")
        left.pop()
        rename(old, new, **folders)

    with monkeypatch.context() as patched, pytest.raises(SinkError):
        patched.setattr(files.os, "rename", limited)
        finish(out)
    assert staging.is_pending(out)
    finish(out)
    assert contents(out) == {"new"} and (out / "b-2" / "notes.txt").read_text() == "mine"
