"""Names from anybody: addresses for paths, control characters, formulas for spreadsheets, odd line ends."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from streamgate.sinks.disk import DiskSink
from streamgate.store.run import SourceInfo
from support.command import inside, lines, streamgate
from support.media import astronaut_frames, write_clip
from support.sink_values import Make


@pytest.mark.parametrize("command", [
    ["run", "x.mp4", "-o"], ["export", "OUT", "--to", "csv", "-o"], ["demo", "-o"], ["score", "x.png", "--heatmap"],
    ["serve", "--rtsp", "rtsp://127.0.0.1:1/x", "--out"], ["serve", "--rtsp", "rtsp://127.0.0.1:1/x", "--spool"],
    ["report"], ["merge"], ["people"], ["clips"],
])  # fmt: skip
@pytest.mark.parametrize("name", ["", "s3://bucket/faces", "file:///tmp/faces", "file:/tmp/faces", "gs://u:pw12345@b/x"])
def test_an_output_is_a_path_of_this_machine(
    command: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = inside(*command, name)
    if command[0] == "export" and name.startswith(("s3:", "gs:")):
        # An export may go to a store; the results are looked for first.
        assert done.code == 3 and "OUT" in done.err, done.err
    else:
        assert done.code == 2 and ("it is empty" if not name else "is not supported here") in done.err, done.err
    assert "pw12345" not in done.err and list(tmp_path.iterdir()) == []


def test_the_file_of_streams_names_no_address_either(tmp_path: Path) -> None:
    config = tmp_path / "streams.toml"
    config.write_text('[service]\nout = "s3://bucket/faces"\n[streams.door]\nurl = "rtsp://127.0.0.1:1/x"\n')
    done = streamgate("serve", "--config", config)
    assert done.code == 2 and "s3:// is not supported here" in done.err, done.err


@pytest.mark.parametrize(("name", "shown"), [
    ("a\x1b[31mred\x07", "a\\x1b[31mred\\x07"), ("two\nlines", "two\\nlines"), ("\x9bcsi", "\\x9bcsi"),
    ("line\u2028separator", "line\\u2028separator"), ("\u202etxt.exe", "\\u202etxt.exe"), ("\udcff", "\\xff"),
])  # fmt: skip
@pytest.mark.parametrize("command", ["report", "people", "export --to csv", "tune", "replay --sink redis://127.0.0.1:1"])
def test_control_characters_are_shown_and_not_sent(command: str, name: str, shown: str, tmp_path: Path) -> None:
    first, *more = command.split(" ")
    done = inside(first, tmp_path / name, *more)
    assert done.code == 3 and shown in done.err and name not in done.err, done.err


def results(out: Path, location: str, source_id: str = "a-0a1b2c3d") -> Path:
    make = Make()
    make.source = lambda name: SourceInfo(location, source_id)  # type: ignore[method-assign]
    with DiskSink(out, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        make.fill(writer, "a")
        writer.commit(make.result("a"))
        sink.finish([], {})
    return out


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\uff1d"])
def test_no_cell_of_a_csv_is_a_formula(sign: str, tmp_path: Path) -> None:
    location = f"{sign}HYPERLINK(\"http://x\",\"y\").mp4"
    out = results(tmp_path / "out", location)
    faces = [{**record, "source": location} for record in lines(out / "faces.jsonl")]
    (out / "faces.jsonl").write_text("".join(json.dumps(face) + "\n" for face in faces))
    done = inside("export", out, "--to", "csv", "-o", tmp_path / "faces.csv")
    assert done.code == 0 and f"{len(faces)} cells that begin like a formula" in done.err, done.err
    with open(tmp_path / "faces.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["source"] for row in rows} == {f"'{location}"}
    # Numbers below zero are numbers.
    assert all(float(row["pose_pitch"]) < 0 for row in rows)
    other = inside("export", results(tmp_path / "plain", "in/a.mp4"), "--to", "csv", "-o", tmp_path / "plain.csv")
    assert other.code == 0 and "formula" not in other.err


def test_odd_line_ends_in_a_name_end_no_line(tmp_path: Path) -> None:
    odd = "a\u2028b\x85c\x1cd\x0be"
    clip = write_clip(tmp_path / "plain.mp4", astronaut_frames(12, (640, 480), zoom=1.6))
    clip = clip.rename(tmp_path / f"{odd}.mp4")
    out = tmp_path / "out"
    done = streamgate("run", clip, "-o", out)
    assert done.code == 0, done.err
    assert not {"\u2028", "\x85", "\x1c", "\x0b"} & set(done.err + done.out)
    with open(out / "faces.jsonl", "rb") as file:
        records = [json.loads(line) for line in file]
    assert len(records) == 1
    for command in (["report", out], ["people", out], ["export", out, "--to", "csv"], ["tune", out, "--max-yaw", 4]):
        assert inside(*command, *(["--pictured"] if command[0] == "tune" else [])).code == 0, command
