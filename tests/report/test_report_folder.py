"""The report's file as `run` leaves it and `streamgate report` rebuilds it: contents, pages, damage."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from streamgate.config import load_config
from streamgate.report import write
from streamgate.report.content import Content
from streamgate.sinks.disk import DiskSink
from streamgate.store.manifest import Manifest
from support.command import streamgate
from support.sink_values import Make


def run(out: Path, make: Make, names: list[str], kept: int = 2) -> Path:
    """Results of some sources, three tracks each: one keeps `kept` faces, one a single one, one nothing."""
    info = make.run(config=load_config().model_dump(mode="json"))
    with DiskSink(out, info, report=True) as sink:
        for name in names:
            writer = sink.open_source(make.source(name))
            for step in range(6):
                writer.evaluated(make.candidate(1 + step % 3, step / 10))
            for track_id, count in ((1, 1), (2, kept), (3, 0)):
                writer.track(make.ended(name, track_id, kept=count))
            writer.commit(make.result(name))
        sink.finish([make.result(name) for name in names], {"seconds": 1.0})
    return out


def data(page: Path) -> dict[str, Any]:
    """What the page shows, as it stands in it."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_it_shows_every_source_face_and_track(tmp_path: Path, make: Make) -> None:
    page = data(run(tmp_path / "out", make, ["a", "b"]) / "report.html")
    assert page["title"] == "6 faces from 2 sources"
    assert [group["name"] for group in page["groups"]] == ["a.mp4", "b.mp4"]
    group = page["groups"][0]
    assert len(group["faces"]) == 3 and len(group["tracks"]) == 3
    assert all(face["thumbnail"] and face["image"] for face in group["faces"])
    assert [len(track["series"]) for track in group["tracks"]] == [2, 2, 2]
    told = page["summary"]
    assert (told["faces"], told["tracks"], told["tracks_without"]) == (6, 6, 2)
    assert sum(told["histograms"]["quality"]["counts"]) == 6
    assert told["weights"][0]["sha256"] == "ab" * 32


def test_it_is_listed_as_ours_and_its_bytes_follow_from_the_results(tmp_path: Path, make: Make) -> None:
    out = run(tmp_path / "out", make, ["a"])
    assert "report.html" in json.loads((out / ".streamgate" / "manifest.json").read_text())["files"]
    first = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    done = streamgate("report", out)
    assert done.code == 0 and done.out.strip() == str(out / "report.html")
    assert (out / "report.html").read_bytes() == first
    assert (run(tmp_path / "again", make, ["a"]) / "report.html").read_bytes() == first


def test_it_asks_nobody_and_holds_nothing_that_varies(tmp_path: Path, make: Make) -> None:
    text = (run(tmp_path / "out", make, ["a"]) / "report.html").read_text()
    addresses = set(re.findall(r"https?://[^\s\"'<>\\]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "seconds\":1.0" not in text, "the run's timing"


def test_beyond_the_limit_each_group_has_pages_of_its_own(tmp_path: Path, make: Make) -> None:
    out = run(tmp_path / "out", make, ["a", "b", "c"], kept=25)
    content = Content(out)
    pages = write.plan(content, most=24)
    assert list(pages)[:2] == ["report.html", "report/page-2.html"]
    for name, make_text in pages.items():
        target = tmp_path / "pages" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(make_text())
        shown = data(target)
        assert sum(len(group["faces"]) for group in shown["groups"]) <= 24
        for group in shown["groups"]:
            assert group.get("page") is None or (target.parent / group["page"]).resolve().relative_to(tmp_path)
            for face in group["faces"]:
                assert (out / Path(name).parent / shown["base"] / face["image"]).resolve().is_file()
    first = data(tmp_path / "pages" / "report.html")
    assert [len(group["faces"]) for group in first["groups"]] == [12, 12] and first["groups"][0]["face_count"] == 26
    everywhere = [
        face["key"]
        for name in pages
        if re.fullmatch(r"report/\d+(-\d+)?\.html", name)
        for group in data(tmp_path / "pages" / name)["groups"]
        for face in group["faces"]
    ]
    assert len(everywhere) == len(set(everywhere)) == 3 * 26


def test_beyond_the_limit_small_groups_share_a_page(tmp_path: Path, make: Make) -> None:
    out = run(tmp_path / "out", make, ["a", "b", "c", "d"], kept=3)
    content = Content(out)
    shown: dict[str, list[dict]] = {}
    for name, make_text in write.plan(content, most=9).items():
        (tmp_path / "page.html").write_text(make_text())
        shown[name] = data(tmp_path / "page.html")["groups"]
    shared = ["report/00001.html", "report/00003.html"]
    assert [name for name in shown if re.fullmatch(r"report/\d+\.html", name)] == shared
    whole = [(name, group) for name in shared for group in shown[name]]
    assert all(group["tracks"] and group["face_count"] == len(group["faces"]) for _, group in whole)
    led = [group["page"].removeprefix("../") for name in shown if name not in shared for group in shown[name]]
    assert led == [f"{name}#group-{group['key']}" for name, group in whole]


def test_pages_that_are_no_longer_needed_go(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run(tmp_path / "out", make, ["a", "b"])
    whole = write.plan
    monkeypatch.setattr(write, "plan", lambda content: whole(content, most=4))
    write.write_report(out, Manifest.read(out))
    assert (out / "report" / "00001.html").is_file()
    (out / "report" / "mine.txt").write_text("mine")
    monkeypatch.undo()
    assert streamgate("report", out).code == 0
    assert [path.name for path in (out / "report").iterdir()] == ["mine.txt"]


def test_a_report_of_somebody_else_is_left_alone(tmp_path: Path, make: Make) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("mine")
    with pytest.raises(Exception, match="not written by streamgate"):
        run(out, make, ["a"])
    assert (out / "report.html").read_text() == "mine"


def test_what_is_damaged_is_named_and_the_rest_is_shown(tmp_path: Path, make: Make) -> None:
    out = run(tmp_path / "out", make, ["a", "b", "c"])
    notes = next(out.glob("a-*/report.jsonl.gz"))
    notes.write_bytes(notes.read_bytes()[:-30])
    next(out.glob("b-*/report.jsonl.gz")).unlink()
    picture = next(out.glob("c-*/track_0001/1.png"))
    picture.unlink()
    faces = out / "faces.jsonl"
    faces.write_text(faces.read_text() + '{"schema":1,"torn')
    done = streamgate("report", out)
    assert done.code == 0
    for name in (str(notes.relative_to(out)), str(picture.relative_to(out)), "faces.jsonl"):
        assert name in done.err
    page = data(out / "report.html")
    assert len([face for group in page["groups"] for face in group["faces"]]) == 9
    from_pictures = next(group for group in page["groups"] if group["name"] == "b.mp4")
    assert all(face["thumbnail"] for face in from_pictures["faces"])
    assert all(track["series"] for track in from_pictures["tracks"])
    assert any("faces.jsonl" in problem for problem in page["summary"]["problems"])


def test_persons_come_with_their_names(tmp_path: Path, make: Make) -> None:
    out = run(tmp_path / "out", make, ["a", "b"])
    records = [json.loads(line) for line in (out / "faces.jsonl").read_text().splitlines()]
    for record in records:
        record["person_id"] = "p2" if record["track_id"] == 2 else None
    (out / "faces.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write.write_report(out, Manifest.read(out), {"p2": "Anna <Maria>"})
    page = data(out / "report.html")
    assert page["title"] == "6 faces of 1 person"
    assert [(group["kind"], group["name"], len(group["faces"])) for group in page["groups"]] == [
        ("person", "Anna <Maria>", 4), ("nobody", "", 2), ("nothing", "", 0),
    ]  # fmt: skip
    assert page["groups"][0]["source_count"] == 2


@pytest.mark.parametrize("damage", ["no folder", "empty", "schema", "no summary", "torn summary"])
def test_a_folder_it_cannot_read_is_refused_in_words(tmp_path: Path, make: Make, damage: str) -> None:
    out = tmp_path / "out"
    if damage == "empty":
        out.mkdir()
    elif damage != "no folder":
        run(out, make, ["a"])
        summary = out / "summary.json"
        if damage == "schema":
            summary.write_text(summary.read_text().replace('"schema": 1', '"schema": 9'))
        elif damage == "no summary":
            summary.unlink()
        else:
            summary.write_text(summary.read_text()[:100])
    done = streamgate("report", out)
    assert done.code == 3 and str(out) in done.err and done.err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path, make: Make) -> None:
    out = run(tmp_path / "out", make, ["a"])
    out.chmod(0o555)
    try:
        assert streamgate("report", out).code == 5
    finally:
        out.chmod(0o755)


def test_without_candidates_and_notes_there_is_still_a_report(tmp_path: Path, make: Make) -> None:
    out = run(tmp_path / "out", make, ["a"])
    for path in [*out.glob("*/candidates.jsonl.gz"), *out.glob("*/report.jsonl.gz")]:
        path.unlink()
    assert streamgate("report", out).code == 0
    assert all(face["thumbnail"] for face in data(out / "report.html")["groups"][0]["faces"])


def test_notes_have_the_same_bytes_for_the_same_run(tmp_path: Path, make: Make) -> None:
    first, second = (next(run(tmp_path / name, make, ["a"]).glob("a-*/report.jsonl.gz")) for name in ("x", "y"))
    assert first.read_bytes() == second.read_bytes()
    assert len(gzip.decompress(first.read_bytes()).splitlines()) == 3
    shutil.rmtree(tmp_path / "x")
