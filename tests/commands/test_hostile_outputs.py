"""Output that cannot be written: exit 5, one line, and nothing half-written under a final name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.command import lines
from support.hostile import Ran, leftovers, run_limited
from support.hostile_videos import clip_bytes
from support.mounted import mount, remount  # noqa: F401 (a fixture)
from support.real_weights import standard_models


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(2):
        (folder / f"clip{number}.mp4").write_bytes(clip_bytes() + b"\0\0\0\x09free" + bytes([number]))
    return sorted(folder.iterdir())


def run(clips: list[Path], out: Path, *more: str) -> Ran:
    return run_limited(["run", *clips, "-o", out, *more], {"STREAMGATE_MODELS": str(standard_models())})


def whole_sources(out: Path) -> int:
    """Committed sources; each must be complete."""
    folders = [path for path in out.iterdir() if path.is_dir() and path.name != ".streamgate"]
    for folder in folders:
        assert json.loads((folder / "source.json").read_text())["status"] == "done"
        for record in lines(folder / "faces.jsonl"):
            assert (out / record["image"]).stat().st_size > 10_000
    return len(folders)


@pytest.mark.parametrize("size", ["40k", "500k"])
def test_a_full_disk(clips: list[Path], mount: Callable[[str], Path], size: str) -> None:  # noqa: F811
    out = mount(f"size={size}") / "out"
    ran = run(clips, out)
    assert ran.code == 5, ran.err
    told = [line for line in ran.err.splitlines() if line.startswith("streamgate:")]
    assert len(told) == 1 and "no space left" in told[0], ran.err
    assert leftovers(out) == []
    assert whole_sources(out) < 2
    # With room again the same folder serves.
    remount(out.parent, "size=50m")
    again = run(clips, out, "--overwrite")
    assert again.code == 0, again.err
    assert whole_sources(out) == 2 and len(lines(out / "faces.jsonl")) == 2


def test_a_read_only_disk(clips: list[Path], mount: Callable[[str], Path]) -> None:  # noqa: F811
    folder = mount("size=10m")
    (folder / "there").mkdir()
    remount(folder, "ro")
    for out in (folder / "out", folder / "there"):
        ran = run(clips, out)
        assert ran.code == 5 and "read-only" in ran.err, ran.err
    assert [path.name for path in folder.rglob("*")] == ["there"]


def test_a_path_that_is_a_file_or_leads_through_one(clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "deep")
    (tmp_path / "loop").symlink_to("loop")
    for out in ("file", "file/below", "loop", "x" * 300):
        ran = run(clips, tmp_path / out)
        told = [line for line in ran.err.splitlines() if line.startswith("streamgate:")]
        assert ran.code == 5 and len(told) == 1 and re.search("choose|remove", told[0]), (out, ran.err)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_of_somebody_else_where_a_result_goes(clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "faces.jsonl").write_text("mine\n")
    ran = run(clips, tmp_path / "out")
    assert ran.code == 5 and "move it" in ran.err
    assert (tmp_path / "out" / "faces.jsonl").read_text() == "mine\n"
