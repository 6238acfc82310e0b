"""Output folders from anybody: links lead nowhere, damage is named with one exit code, and nothing crashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command import inside, streamgate
from support.hostile import run_limited
from support.hostile_folders import LINKED_DAYS, LINKS, STORED, Spoiled, contents, live_folder, put
from support.media import astronaut_frames, write_clip
from support.serve_process import serving


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    frames = astronaut_frames(30, (640, 480), step=1.0, zoom=1.6)
    return [write_clip(folder / f"{name}.mp4", frames[number:]) for number, name in enumerate("ab")]


@pytest.fixture(scope="module")
def results(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "out"
    done = streamgate("run", *clips, "-o", out, "--set", "identity.store=disk")
    assert done.code == 0, done.err
    assert inside("people", out, "name", "p0001", "Ann").code == 0
    # A face is put aside and taken back.
    assert inside("tune", out, "--min-size", 2000, "--pictured").code == 0
    assert inside("tune", out, "--set", "measures.size.min=0.1", "--pictured").code == 0
    return out


@pytest.mark.parametrize("spoiled", LINKS, ids=lambda one: f"{one.what}: {one.command.split(' ')[0]}")
def test_no_link_leads_out_of_the_folder(
    spoiled: Spoiled, results: Path, clips: list[Path], tmp_path: Path
) -> None:
    command, elsewhere = put(spoiled, results, tmp_path, clips[0])
    before = contents(elsewhere)
    done = streamgate(*command)
    assert done.code == spoiled.code and spoiled.words in done.err, done.err
    assert "internal error" not in done.err and contents(elsewhere) == before


@pytest.mark.parametrize("spoiled", STORED, ids=lambda one: one.what)
def test_what_is_damaged_is_named(spoiled: Spoiled, results: Path, clips: list[Path], tmp_path: Path) -> None:
    command, _ = put(spoiled, results, tmp_path, clips[0])
    ran = run_limited(command, {}, limit_s=120)
    assert ran.code == spoiled.code and spoiled.words in ran.err, ran.err
    assert "internal error" not in ran.err and ran.peak_mib < 700
    if ran.code == 3:
        remedies = ("again", "remove it", "another folder", "use the version")
        assert any(words in ran.err for words in remedies), "what to do"


def test_a_torn_source_stays_as_it_was_and_the_others_are_tuned(
    results: Path, clips: list[Path], tmp_path: Path
) -> None:
    torn = next(one for one in STORED if "cut off" in one.what)
    put(torn, results, tmp_path, clips[0])
    out = tmp_path / "out"
    mine, other = sorted(path.parent for path in out.glob("*/faces.jsonl"))
    before = mine.joinpath("faces.jsonl").read_bytes()
    assert inside("tune", out, "--min-size", 2000, "--pictured").code == 1
    assert mine.joinpath("faces.jsonl").read_bytes() == before != b""
    assert other.joinpath("faces.jsonl").read_bytes() == b""


def test_a_lock_that_has_another_name_is_left_as_it_is(results: Path, clips: list[Path], tmp_path: Path) -> None:
    _, elsewhere = put(LINKS[0], results, tmp_path, clips[0])
    (tmp_path / "out" / ".streamgate").unlink()
    (elsewhere / "streamgate").rename(tmp_path / "out" / ".streamgate")
    lock, decisions = (tmp_path / "out" / ".streamgate" / name for name in ("lock", "decisions.jsonl"))
    for path in (lock, decisions):
        path.write_bytes(b"mine\n" if path == lock else path.read_bytes())
        (elsewhere / path.name).hardlink_to(path)
    before = contents(elsewhere)
    assert inside("people", tmp_path / "out", "name", "p0001", "Bob").code == 0
    assert contents(elsewhere) == before
    assert "Bob" in inside("people", tmp_path / "out").out


@pytest.mark.parametrize("linked", LINKED_DAYS.values(), ids=LINKED_DAYS)
def test_serve_removes_what_is_old_and_nothing_behind_a_link(linked: str, tmp_path: Path) -> None:
    old = live_folder(tmp_path / "out", tmp_path / "elsewhere", linked)
    before = contents(tmp_path / "elsewhere")
    arguments = ("--rtsp", "door=rtsp://127.0.0.1:1/x", "--out", "out", "--max-days", "1", "--http", "off")
    with serving(tmp_path, *arguments) as service:
        service.until(lambda: not old.exists(), "the old face to go")
        assert service.end() == 0
    assert contents(tmp_path / "elsewhere") == before != {}


@pytest.mark.parametrize("part", ["", "spool"])
def test_serve_takes_no_link_for_its_own_folders(part: str, tmp_path: Path) -> None:
    state, elsewhere = tmp_path / "out" / ".streamgate", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (state / part).parent.mkdir(parents=True)
    (state / part).symlink_to(elsewhere)
    done = streamgate("serve", "--rtsp", "rtsp://127.0.0.1:1/x", "--http", "off", "--out", tmp_path / "out",
                      "--redis", "redis://127.0.0.1:1/0")  # fmt: skip
    assert done.code == 5 and "symbolic link" in done.err and list(elsewhere.iterdir()) == []
