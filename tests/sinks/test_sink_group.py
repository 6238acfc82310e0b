"""Several sinks as one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streamgate.errors import SinkError
from streamgate.sinks import SinkGroup
from streamgate.sinks.disk import DiskSink

if TYPE_CHECKING:
    from support.sink_values import Make


class Recorder:
    """A sink and its writer in one; says what happened in a shared log, fails where it is told to."""

    def __init__(self, name: str, log: list[str], fails: tuple[str, ...] = ()) -> None:
        self.name, self.log, self.fails = name, log, fails

    def _say(self, what: str) -> None:
        self.log.append(f"{self.name} {what}")
        if what in self.fails:
            raise SinkError(f"{self.name} fails to {what}")

    def __enter__(self) -> Recorder:
        self._say("enter")
        return self

    def __exit__(self, *_: object) -> None:
        self._say("exit")

    def open_source(self, source: object) -> Recorder:
        self._say("open")
        return self

    def finish(self, results: list, timing: Mapping[str, float]) -> None:
        self._say("finish")

    def evaluated(self, candidate: object) -> None:
        self._say("evaluated")

    def track(self, ended: object) -> None:
        self._say("track")

    def commit(self, result: object) -> None:
        self._say("commit")

    def discard(self) -> None:
        self._say("discard")


def test_everything_goes_to_each_in_order(make: Make) -> None:
    log: list[str] = []
    with SinkGroup([Recorder("one", log), Recorder("two", log)]) as group:
        writer = group.open_source(make.source("a"))
        writer.evaluated(make.candidate(1, 0.0))
        writer.track(make.ended("a", 1))
        writer.commit(make.result("a"))
        group.finish([], {})
    steps = ["enter", "open", "evaluated", "track", "commit", "finish"]
    assert log == [f"{name} {step}" for step in steps for name in ("one", "two")] + ["two exit", "one exit"]


def test_a_sink_that_cannot_be_entered_closes_those_before(make: Make) -> None:
    log: list[str] = []
    with pytest.raises(SinkError), SinkGroup([Recorder("one", log), Recorder("two", log, ("enter",))]):
        pass
    assert log == ["one enter", "two enter", "one exit"]


def test_a_source_that_one_refuses_is_dropped_by_the_others(make: Make) -> None:
    log: list[str] = []
    group = SinkGroup([Recorder("one", log), Recorder("two", log, ("open",))])
    with group, pytest.raises(SinkError):
        group.open_source(make.source("a"))
    assert "one discard" in log


def test_a_failing_commit_keeps_what_is_before_it(make: Make) -> None:
    log: list[str] = []
    names = [Recorder("one", log), Recorder("two", log, ("commit",)), Recorder("three", log)]
    with SinkGroup(names) as group:
        writer = group.open_source(make.source("a"))
        with pytest.raises(SinkError, match="two fails"):
            writer.commit(make.result("a"))
    assert [entry for entry in log if "commit" in entry or "discard" in entry] == [
        "one commit", "two commit", "two discard", "three discard",
    ]  # fmt: skip


def test_disk_keeps_a_source_whose_events_could_not_be_sent(tmp_path: Path, make: Make) -> None:
    log: list[str] = []
    with (
        pytest.raises(SinkError),
        SinkGroup([DiskSink(tmp_path, make.run()), Recorder("redis", log, ("commit",))]) as group,
    ):
        writer = group.open_source(make.source("a"))
        make.fill(writer, "a")
        writer.commit(make.result("a"))
    assert (tmp_path / "a-0a1b2c3d" / "source.json").is_file()
    assert len((tmp_path / "faces.jsonl").read_text().splitlines()) == 3
