# ruff: noqa: F811 - fixtures are imported
"""A folder that a run has written gives the events that the run sent, and says what of it is damaged."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamgate.errors import ResultsError, SinkError
from streamgate.sinks import SinkGroup
from streamgate.sinks.disk import DiskSink
from streamgate.sinks.redis import RedisSink
from streamgate.sinks.redis_stream import unpack
from streamgate.sinks.replay_source import finished_sources
from streamgate.store.images import decode_png, encode_png
from streamgate.store.lock import unchanged
from streamgate.store.run import SourceInfo
from streamgate.tracks import Encoding
from support.redis_server import RedisServer, start_redis  # noqa: F401
from support.sink_values import Make, make  # noqa: F401


@pytest.fixture
def out(tmp_path: Path, make: Make) -> Path:
    """Two sources of three kept faces and one track that keeps nothing each."""
    folder = tmp_path / "out"
    with DiskSink(folder, make.run()) as sink:
        for name in "ab":
            make.send(sink, name)
        sink.finish([make.result(name) for name in "ab"], {})
    return folder


def events(out: Path) -> tuple[list[dict[str, bytes]], list[str]]:
    damages: list[str] = []
    sources = finished_sources(out, damages.append)
    return [unpack(item) for source in sources for item in source.events(damages.append)], damages


def test_the_events_are_those_of_the_run_byte_for_byte(
    tmp_path: Path, make: Make, start_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis()
    usual = make.source
    odd = SourceInfo("in/straße \udcff\n\u2028'.mp4", "c-0a1b2c3d")
    monkeypatch.setattr(make, "source", lambda name: odd if name == "c" else usual(name))
    with SinkGroup([DiskSink(tmp_path, make.run()), RedisSink(server.url(), make.run())]) as sink:
        for name in "acb":
            writer = sink.open_source(make.source(name))
            for track_id in range(6, 0, -1):
                writer.track(make.ended(name, track_id, kept=track_id % 3))
            writer.commit(make.result(name))
        sink.finish([make.result(name) for name in "abc"], {})
    found, problems = events(tmp_path)
    assert problems == [] and len(found) == 3 * (2 * (1 + 2) + 2)
    sent = server.entries()
    # The run sent its sources as they came; here they come by their ids, each in its own order.
    sent.sort(key=lambda entry: entry["id"].partition(b"/")[0])
    assert sent == found
    assert sum(source.finals for source in finished_sources(tmp_path, problems.append)) == len(found)


def test_what_was_added_to_records_later_is_not_sent(out: Path) -> None:
    part = out / "a-0a1b2c3d" / "faces.jsonl"
    before, _ = events(out)
    part.write_text(part.read_text().replace('"person_id":null', '"person_id":"p1"'))
    assert '"p1"' in part.read_text() and events(out)[0] == before


def test_a_copy_without_our_own_files_is_enough(out: Path) -> None:
    before = events(out)
    shutil.rmtree(out / ".streamgate")
    assert events(out) == before


def test_a_run_that_was_killed_gives_what_it_committed(out: Path) -> None:
    before = events(out)
    (out / "summary.json").unlink()
    (out / "faces.jsonl").unlink()
    assert events(out) == before


def test_nothing_but_results_of_a_run_will_do(tmp_path: Path, out: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "live" / "door" / "2026-01-01").mkdir(parents=True)
    (tmp_path / "live" / "door" / "2026-01-01" / "faces.jsonl").write_text("{}\n")
    for name, words in (
        ("nowhere", "no such folder"), ("file", "is a file"), ("empty", "no results of `streamgate run`"),
        ("live", "streamgate serve"),
    ):  # fmt: skip
        with pytest.raises(ResultsError, match=words):
            finished_sources(tmp_path / name, print)


def test_another_schema_is_refused(out: Path) -> None:
    for path in (out / "summary.json", out / ".streamgate" / "manifest.json"):
        path.write_text(path.read_text().replace('"schema": 1', '"schema": 7', 1))
    with pytest.raises(ResultsError, match=r"another version \(schema 7, this version reads 1\)"):
        finished_sources(out, print)


def test_a_source_of_another_schema_is_left_out_and_named(out: Path) -> None:
    record = out / "a-0a1b2c3d" / "source.json"
    record.write_text(record.read_text().replace('"schema": 1', '"schema": 7'))
    found, problems = events(out)
    assert len(found) == 4 and len(problems) == 1 and "schema 7" in problems[0] and "a-0a1b2c3d" in problems[0]


DAMAGES: list[tuple[str, Callable[[Path], object], int, str]] = [
    ("image missing", lambda a: (a / "track_0001" / "1.png").unlink(), 1, "track_0001/1.png is missing"),
    ("image cut off", lambda a: cut(a / "track_0001" / "1.png"), 1, "track_0001/1.png is cut off"),
    ("image flipped", lambda a: flip(a / "track_0001" / "1.png"), 1, "track_0001/1.png is damaged"),
    ("image is text", lambda a: (a / "track_0001" / "1.png").write_text("x"), 1, "track_0001/1.png is not a PNG"),
    ("image is empty", lambda a: (a / "track_0001" / "1.png").write_text(""), 1, "track_0001/1.png is empty"),
    ("image is a pipe", lambda a: replaced(a / "track_0001" / "1.png", os.mkfifo), 1, "track_0001/1.png"),
    ("image is a folder", lambda a: replaced(a / "track_0001" / "1.png", os.mkdir), 1, "track_0001/1.png cannot be"),
    ("image is a link", lambda a: linked(a / "track_0001" / "1.png"), 1, "track_0001/1.png cannot be read"),
    ("a track's images missing", lambda a: shutil.rmtree(a / "track_0002"), 2, "track_0002/1.png is missing"),
    ("faces missing", lambda a: (a / "faces.jsonl").unlink(), 3, "faces.jsonl is missing"),
    ("faces cut off", lambda a: cut(a / "faces.jsonl", 0.9), 1, "faces.jsonl is damaged: 1 line is skipped (line 3"),
    ("faces cut off by a line", lambda a: keep_lines(a / "faces.jsonl", 2), 1, "lacks 1 of 2 faces of track 2"),
    (
        "faces of another source", lambda a: changed(a / "faces.jsonl", "a-0a1b2c3d", "b-0a1b2c3d"), 3,
        "belongs to another source",
    ),
    (
        "faces not finite", lambda a: changed(a / "faces.jsonl", '"upscaled":null', '"upscaled":1e999'), 3,
        "3 lines are skipped",
    ),
    ("faces NaN", lambda a: changed(a / "faces.jsonl", '"upscaled":null', '"upscaled":NaN'), 3, "3 lines are skipped"),
    (
        "outside is a text", lambda a: changed(a / "faces.jsonl", '"outside":null', '"outside":"x"'), 3,
        "outside is not a number",
    ),
    ("rank is a path", lambda a: changed(a / "faces.jsonl", '"rank":1', '"rank":"../../1"'), 2, "rank is not a count"),
    ("a line without end", lambda a: (a / "faces.jsonl").write_bytes(b"[" * (3 << 20)), 3, "1 line is skipped (line 1"),
    ("tracks missing", lambda a: (a / "tracks.jsonl").unlink(), 4, "tracks.jsonl is missing"),
    ("tracks are noise", lambda a: (a / "tracks.jsonl").write_bytes(os.urandom(999)), 4, "tracks.jsonl is damaged"),
    (
        "a track without reasons", lambda a: changed(a / "tracks.jsonl", '"reasons":["yaw"]', '"x":[]'), 1,
        "reasons is missing",
    ),
    ("a track twice", lambda a: double(a / "tracks.jsonl"), 0, "lacks"),
    ("source.json missing", lambda a: (a / "source.json").unlink(), 4, "source.json is missing"),
    ("source.json torn", lambda a: cut(a / "source.json"), 4, "source.json is damaged"),
    ("source.json of another", lambda a: changed(a / "source.json", "a-0a1b", "b-0a1b"), 4, "source.json is damaged"),
    ("the whole source missing", shutil.rmtree, 4, "source.json is missing"),
]


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def changed(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def replaced(path: Path, make_it: Callable[[Path], object]) -> None:
    path.unlink()
    make_it(path)


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere.png"))
    path.symlink_to("elsewhere.png")


def keep_lines(path: Path, count: int) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:count]))


def double(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


@pytest.mark.parametrize(("damage", "lost", "words"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_damage_costs_itself_and_is_named(out: Path, damage: Callable[[Path], object], lost: int, words: str) -> None:
    whole, none = events(out)
    assert len(whole) == 8 and none == []
    damage(out / "a-0a1b2c3d")
    found, problems = events(out)
    assert problems and words in "; ".join(problems), problems
    # The rest is what it was; a track that stands twice sends its rank 0 twice, under one id.
    rest = [one for one in whole if one in found]
    assert len(rest) == 8 - lost and found[-4:] == whole[-4:]
    assert all(one in whole for one in found)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"sources": {}}', b"\xff", b"[" * 100_000])
def test_a_damaged_summary_is_named_and_the_manifest_serves(out: Path, content: bytes) -> None:
    (out / "summary.json").write_bytes(content)
    found, problems = events(out)
    assert len(found) == 8 and len(problems) == 1 and "summary.json is damaged" in problems[0]
    shutil.rmtree(out / ".streamgate")
    with pytest.raises(ResultsError, match=r"summary.json is damaged"):
        finished_sources(out, print)


@pytest.mark.parametrize("name", ["..", "../elsewhere", "/etc", ".streamgate", "a/../../x", "", 7, None])
def test_a_summary_cannot_lead_elsewhere(out: Path, name: object) -> None:
    summary = json.loads((out / "summary.json").read_text())
    summary["sources"].append({**summary["sources"][0], "source_id": name})
    (out / "summary.json").write_text(json.dumps(summary))
    found, problems = events(out)
    assert len(found) == 8
    if isinstance(name, str):
        assert problems == []
    else:
        assert len(problems) == 1 and "summary.json is damaged (sources.2.source_id is not text)" in problems[0]


def test_sources_that_failed_are_not_missed(tmp_path: Path, make: Make) -> None:
    with DiskSink(tmp_path, make.run()) as sink:
        make.send(sink, "a")
        sink.finish([make.result("a"), make.result("b", status="failed", error="b: broken")], {})
    found, problems = events(tmp_path)
    assert len(found) == 4 and problems == []


def test_a_folder_in_which_a_run_works_is_left_alone(tmp_path: Path, make: Make) -> None:
    with DiskSink(tmp_path, make.run()), pytest.raises(SinkError, match="in use by a run"), unchanged(tmp_path):
        pass
    # And no run begins meanwhile.
    with unchanged(tmp_path), pytest.raises(SinkError, match="in use"), DiskSink(tmp_path, make.run(), overwrite=True):
        pass


def test_a_crop_comes_back_as_it_was() -> None:
    crop = np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8)
    assert np.array_equal(decode_png(encode_png(crop)), crop)


def test_no_picture_but_ours_is_decoded() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow makes the pictures")
    for mode in ("L", "RGBA", "P", "I;16"):
        buffer = io.BytesIO()
        image.new(mode, (64, 64)).save(buffer, "PNG")
        with pytest.raises(ValueError, match="was not written by streamgate"):
            decode_png(buffer.getvalue())
    giant = io.BytesIO()
    image.new("RGB", (8192, 4096)).save(giant, "PNG")
    with pytest.raises(ValueError, match="was not written by streamgate"):
        decode_png(giant.getvalue())


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_crops_with_loss_are_sent_too_and_a_cut_off_one_is_named(kind: str, tmp_path: Path, make: Make) -> None:
    shot = dataclasses.replace(make.shot("a", 1), encoding=Encoding(kind, 90))
    with DiskSink(tmp_path, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        writer.track(dataclasses.replace(make.ended("a", 1), shots=(shot,)))
        writer.commit(make.result("a"))
        sink.finish([make.result("a")], {})
    ((entry,), problems) = events(tmp_path)
    assert problems == [] and json.loads(entry["json"])["crops"] == {} and entry["jpeg"].startswith(b"\xff\xd8")
    crop = next(tmp_path.glob(f"a-*/track_0001/1.{shot.encoding.suffix}"))
    crop.write_bytes(crop.read_bytes()[:-9])
    found, (problem,) = events(tmp_path)
    assert found == [] and "is cut off" in problem
