"""Hostile and odd inputs through the command: one line each, the right exit code, the rest completes, nothing hangs."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest

from support import hostile_giants, hostile_pictures, hostile_videos
from support.command import lines
from support.hostile import Hostile, Ran, leftovers, run_limited, told
from support.hostile_archive import TrapServer, WatchedFolder
from support.hostile_references import references
from support.hostile_videos import clip_bytes
from support.real_weights import standard_models

MOST_MIB = 700
"""docs/design.md 9's bound on memory."""


@dataclass(frozen=True)
class Batch:
    """A run over several inputs, each in a folder of its own."""

    ran: Ran
    out: Path
    paths: dict[str, Path]

    def source(self, name: str) -> dict[str, Any]:
        """Its entry in summary.json."""
        summary = json.loads((self.out / "summary.json").read_text())
        return next(one for one in summary["sources"] if one["source"] == str(self.paths[name]))


def run_batch(inputs: list[Hostile], folder: Path, **environment: str) -> Batch:
    paths = {one.name: one.put(folder / f"in{number}") for number, one in enumerate(inputs)}
    out = folder / "out"
    variables = {"STREAMGATE_MODELS": str(standard_models()), **environment}
    ran = run_limited(["run", *paths.values(), "-o", out, "--jobs", 2], variables)
    return Batch(ran, out, paths)


def check(batch: Batch, one: Hostile) -> None:
    """What holds for every input: one plain line when it fails, none when it is read."""
    source, said = batch.source(one.name), told(batch.ran.err, str(batch.paths[one.name]))
    if one.words:
        assert source["status"] == "failed"
        assert len(said) == 1, said
        assert re.search(one.words, said[0].partition(str(batch.paths[one.name]))[2]), said
        assert "0x" not in said[0] and "Errno" not in said[0]
    else:
        assert source["status"] == "done" and source["frames"] > 0, source
        assert all("warning" in line for line in said), said
        if one.damaged is not None:
            assert (source["decode_errors"] > 0) is one.damaged, source


VIDEOS = [*hostile_videos.DAMAGED, *hostile_videos.UNUSUAL, *hostile_videos.LIES, *hostile_giants.GIANTS]
PICTURES = [*hostile_pictures.BROKEN, *hostile_pictures.UNUSUAL, *hostile_pictures.LIES]
WITH_A_FACE = [
    one.name
    for one in [*hostile_videos.UNUSUAL, *hostile_pictures.UNUSUAL]
    if not one.name.startswith(("one", "tall", "wide"))
]


def names(inputs: list[Hostile]) -> list[str]:
    return [one.name for one in inputs]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    pytest.importorskip("PIL", reason="Pillow makes the pictures")
    # Ten gigabytes of zeros are given up after five seconds instead of a minute.
    return run_batch([*VIDEOS, *PICTURES], tmp_path_factory.mktemp("hostile"), STREAMGATE_STALL_S="5")


@pytest.mark.parametrize("one", [*VIDEOS, *PICTURES], ids=names([*VIDEOS, *PICTURES]))
def test_an_input_is_read_or_refused_in_one_line(batch: Batch, one: Hostile) -> None:
    check(batch, one)


def test_the_run_as_a_whole_says_that_some_inputs_failed(batch: Batch) -> None:
    assert batch.ran.code == 1
    assert leftovers(batch.out) == []
    expected = {"streamgate: ", "device: ", "measures ", "["}
    for line in batch.ran.err.splitlines()[: -len(batch.paths) - 3]:
        assert line.startswith(tuple(expected)), f"a library speaks for itself: {line}"


def test_memory_stays_bounded_whatever_headers_say(batch: Batch) -> None:
    assert batch.ran.peak_mib < MOST_MIB


@pytest.mark.parametrize("name", WITH_A_FACE)
def test_a_face_is_found_in_unusual_files(batch: Batch, name: str) -> None:
    assert batch.source(name)["kept"] >= 1


# Files that point at others.


@pytest.fixture(scope="module")
def pointing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Batch, list[Hostile], set[str], list[str]]]:
    folder = tmp_path_factory.mktemp("references")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "victim.mp4").write_bytes(clip_bytes())
    with TrapServer(clip_bytes(".ts")) as server, WatchedFolder(folder / "elsewhere") as watched:
        inputs = references(folder / "elsewhere", server.port)
        # Beside media a playlist is a stray and only a warning; alone it is refused. `good` shows that others complete.
        good = Hostile("good.mp4", "a sound clip", hostile_videos.data(clip_bytes()))
        made = run_batch([*inputs, good], folder)
        yield made, inputs, watched.touched(), list(server.asked)


def test_no_reference_is_followed(pointing: tuple[Batch, list[Hostile], set[str], list[str]]) -> None:
    batch, _, touched, asked = pointing
    assert touched == set() and asked == []
    assert batch.ran.code == 1 and batch.source("good.mp4")["kept"] == 1


def test_every_reference_gets_its_line(pointing: tuple[Batch, list[Hostile], set[str], list[str]]) -> None:
    batch, inputs, _, _ = pointing
    for one in inputs:
        said = [line for line in batch.ran.err.splitlines() if str(batch.paths[one.name]) in line]
        assert len(said) == 1 and re.search(f"{one.words}|neither a video nor a picture", said[0]), (one.name, said)


def test_the_traps_do_spring(tmp_path: Path) -> None:
    # FFmpeg as it is follows them: without this the two tests above would prove nothing.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "victim.mp4").write_bytes(clip_bytes())
    options = {"protocol_whitelist": "file,http,tcp", "safe": "0", "enable_drefs": "1", "use_absolute_path": "1"}
    with TrapServer(clip_bytes(".ts")) as server, WatchedFolder(tmp_path / "elsewhere") as watched:
        inputs = {one.name: one for one in references(tmp_path / "elsewhere", server.port)}
        for name in ("concat.mp4", "reference-path.mov", "concat-http.mkv", "hls.m3u8"):
            with av.open(str(inputs[name].put(tmp_path / "in")), options=options, timeout=20) as container:
                assert sum(1 for _ in container.demux()) > 1
            asked = [path for path in server.asked if path]
            assert (watched.touched() == {"victim.mp4"}) is (not name.endswith(("mkv", "m3u8"))), name
            assert bool(asked) is name.endswith(("mkv", "m3u8")), name
            server.asked.clear()


# Things that are no plain files, and names.


def test_pipes_devices_sockets_and_links_neither_hang_nor_stop_the_rest(tmp_path: Path) -> None:
    good = tmp_path / "elsewhere" / "good.mp4"
    good.parent.mkdir()
    good.write_bytes(clip_bytes())
    folder = tmp_path / "in"
    # Pictures of one folder are one source.
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    os.mkfifo(folder / "pipe.mp4")
    os.mkfifo(folder / "a" / "pipe.png")
    (folder / "endless.mp4").symlink_to("/dev/zero")
    (folder / "b" / "endless.png").symlink_to("/dev/full")
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "empty.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.mp4"))
    (folder / "linked.mp4").symlink_to(good)
    inputs = sorted(path for path in folder.rglob("*") if path.name not in "ab")
    out = tmp_path / "out"
    ran = run_limited(["run", *inputs, "/dev/null", "-o", out], {"STREAMGATE_MODELS": str(standard_models())})
    assert ran.code == 1
    (record,) = lines(out / "faces.jsonl")
    assert record["source"] == str(folder / "linked.mp4")
    for path in inputs:
        if path.name != "linked.mp4":
            assert len(told(ran.err, str(path))) == 1, (path.name, ran.err)
    # A folder brings what can be read; the rest in it cannot hang it either.
    ran = run_limited(["run", folder, "-o", tmp_path / "again"], {"STREAMGATE_MODELS": str(standard_models())})
    assert ran.code in (0, 1) and len(lines(tmp_path / "again" / "faces.jsonl")) == 1


ODD_NAMES = [
    b"with space.mp4", b"it's \"quoted\".mp4", b"a..b.mp4", b"mp4...mp4", b"new\nline.mp4", b"x" * 251 + b".mp4",
    "smile \U0001f600.mp4".encode(), b"not\xff\xfeutf8.mp4", b"Case.mp4", b"case.MP4", b"CASE.mp4", b"-o.mp4",
    b"[red]markup[bold].mp4", b"\x1b[31mescape.mp4", b"100%d.mp4", b"con.mp4", "\u202egpj.mp4".encode(),
    b"%s{0}$(id).mp4",
]  # fmt: skip


def test_any_name_is_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(ODD_NAMES):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(clip_bytes() + b"\0\0\0\x09free" + bytes([number]))
    out = tmp_path / "out"
    ran = run_limited(["run", folder, "-o", out, "--jobs", 2], {"STREAMGATE_MODELS": str(standard_models())})
    assert ran.code == 0, ran.err
    records = lines(out / "faces.jsonl")
    assert len(records) == len(ODD_NAMES)
    for record in records:
        assert record["source"].isprintable() and (out / record["image"]).is_file()
        assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*-[0-9a-f]{8}", record["source_id"])
    assert "\x1b" not in ran.err and "[red]markup[bold].mp4" in ran.err
    # Every source has one line of its own: a line break in a name makes no second one.
    assert sum(": 24 frames" in line for line in ran.err.splitlines()) == len(ODD_NAMES)
    summary = json.loads((out / "summary.json").read_text())
    assert all("\n" not in source["source"] for source in summary["sources"])


def test_a_way_up_and_down_again_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "clip.mp4").write_bytes(clip_bytes())
    ways = [tmp_path / "clip.mp4", f"{tmp_path}/a/../clip.mp4", f"{tmp_path}//./clip.mp4"]
    ran = run_limited(["run", *ways, "-o", tmp_path / "out"], {"STREAMGATE_MODELS": str(standard_models())})
    assert ran.code == 0 and len(lines(tmp_path / "out" / "faces.jsonl")) == 1


def test_names_that_differ_by_case_alone_cost_one_line_where_the_content_is_the_same(tmp_path: Path) -> None:
    # Told apart by name they would meet again on a file system that tells no cases apart.
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("Clip.mp4", "clip.mp4", "CLIP.MP4"):
        (folder / name).write_bytes(clip_bytes())
    (folder / "other.mp4").write_bytes(clip_bytes())
    ran = run_limited(["run", folder, "-o", tmp_path / "out"], {"STREAMGATE_MODELS": str(standard_models())})
    assert ran.code == 0, ran.err
    kept = [Path(record["source"]).name for record in lines(tmp_path / "out" / "faces.jsonl")]
    assert len(kept) == 2 and "other.mp4" in kept
    assert sum("same name and content" in line for line in ran.err.splitlines()) == 2


def test_score_meets_the_same_pictures(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow makes the pictures")
    chosen = {"giant.png", "lie.jpg", "text.jpg", "print.jpg"}
    made = [one for one in PICTURES if one.name in chosen]
    paths = [one.put(tmp_path) for one in made]
    os.mkfifo(tmp_path / "pipe.png")
    ran = run_limited(["score", *paths, tmp_path / "pipe.png"], {"STREAMGATE_MODELS": str(standard_models())})
    assert ran.code == 1 and ran.peak_mib < MOST_MIB
    (record,) = map(json.loads, ran.out.splitlines())
    assert record["image"].endswith("print.jpg") and len(record["faces"]) == 1
    for name in ("giant.png", "lie.jpg", "text.jpg", "pipe.png"):
        assert len(told(ran.err, name)) == 1, ran.err
