"""Records on standard output."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streamgate.errors import SinkError
from streamgate.sinks.disk import DiskSink
from streamgate.sinks.stdout import print_records

if TYPE_CHECKING:
    from conftest import Make


def commit(out: Path, make: Make, name: str) -> str:
    """Write a run of one source; returns its id."""
    with DiskSink(out, make.run()) as sink:
        writer = sink.open_source(make.source(name))
        make.fill(writer, name)
        writer.commit(make.result(name))
        sink.finish([make.result(name)], {})
    return make.source(name).source_id


def test_records_on_standard_output(
    tmp_path: Path, make: Make, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    print_records(tmp_path, commit(tmp_path, make, "straße"))
    records = [json.loads(line) for line in capsysbinary.readouterr().out.decode("utf-8").splitlines()]
    assert [(record["track_id"], record["rank"]) for record in records] == [(1, 1), (2, 1), (2, 2)]
    assert records[0]["image"] == "straße-0a1b2c3d/track_0001/1.png"


def test_output_records_equal_those_on_disk(tmp_path: Path, make: Make) -> None:
    stream = io.BytesIO()
    print_records(tmp_path, commit(tmp_path, make, "a"), stream)
    assert stream.getvalue() == (tmp_path / "faces.jsonl").read_bytes()


def test_a_reader_that_goes_away_is_a_clear_error(tmp_path: Path, make: Make) -> None:
    source_id = commit(tmp_path, make, "a")
    reading, writing = os.pipe()
    os.close(reading)
    with (
        open(writing, "wb", buffering=0) as stream,
        pytest.raises(SinkError, match="standard output was closed"),
    ):
        print_records(tmp_path, source_id, stream)


def test_a_closed_standard_output_is_a_clear_error(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_id = commit(tmp_path, make, "a")
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(SinkError, match="standard output, which is closed"):
        print_records(tmp_path, source_id)
