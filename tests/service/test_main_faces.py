"""Faces that wait for the main stream are answered in time, whatever it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from streamgate.config import load_config
from streamgate.service.main_faces import MainFaces
from streamgate.service.main_lookup import Lookup
from streamgate.service.main_stream import MainStream
from streamgate.service.pins import Pins, release
from streamgate.service.stream_alignment import ArrivalClock, Match
from streamgate.sources.packet_ring import PacketRing
from streamgate.sources.rtp import Unit
from streamgate.sources.rtsp_client import Media
from streamgate.tracks import BestShot
from support.sink_values import Make

LIVE = load_config("live").live


@pytest.fixture
def faces() -> Iterator[MainFaces]:
    with MainFaces(lambda line: pytest.fail(line), lambda seconds: None) as faces:
        yield faces


@pytest.fixture
def main() -> MainStream:
    """One that has come up to second 10, five of its seconds behind the substream; nothing can be decoded."""
    main = MainStream("gate", "rtsp://ann:pw12345@h/main", LIVE, lambda line: None)
    ring = PacketRing(Media("h264", 90_000, "", b""), 0, LIVE.main_ring_s, LIVE.main_ring_mb << 20)
    clock, sub = ArrivalClock(), ArrivalClock()
    now = time.monotonic()
    for n in range(250):
        clock.note(n * 0.04, now + n * 0.04)
        sub.note(n * 0.04 + 5.0, now + n * 0.04)
        ring.add([Unit(n * 3600, n % 25 == 0, bytes(100))])
    main.alignment.connected(main=clock, sub=sub)
    main.alignment.learn(Match(0.0, 1.0), 0.04)
    main.ring = ring
    return main


class Asked:
    """A lookup and what came of it."""

    def __init__(self, main: MainStream, pts: float, wait_s: float, *, final: bool = True, track: int = 1) -> None:
        self.answers: list[BestShot | None] = []
        self.answered = threading.Event()
        shot = replace(Make().shot("gate", track), pts_seconds=pts, stream="sub")
        until = time.monotonic() + wait_s
        scorer: Any = None
        self.lookup = Lookup(main, scorer, shot, {}, None, final, until, self.done)

    def done(self, shot: BestShot | None) -> None:
        self.answers.append(shot)
        self.answered.set()

    def fell_back(self) -> bool:
        assert self.answered.wait(30)
        return self.answers == [None]


def reasons(main: MainStream) -> dict[str, int]:
    return {name: count for name, count in main.summary()["fallbacks"].items() if count}


def test_a_picture_that_does_not_come_is_waited_for_and_no_longer(faces: MainFaces, main: MainStream):
    asked = Asked(main, 16.0, 0.2)
    faces.put(asked.lookup)
    assert asked.fell_back() and time.monotonic() >= asked.lookup.until
    assert reasons(main) == {"late": 1}


def test_what_is_not_kept_and_what_cannot_be_decoded_is_the_substreams(faces: MainFaces, main: MainStream):
    gone, torn = Asked(main, 4.0, 5.0), Asked(main, 12.0, 5.0)
    for asked in (gone, torn):
        faces.put(asked.lookup)
        assert asked.fell_back()
    assert reasons(main) == {"dropped": 1, "damaged": 1}
    main.ring = None
    away = Asked(main, 12.0, 5.0)
    faces.put(away.lookup)
    assert away.fell_back() and reasons(main)["away"] == 1


def test_of_improved_faces_only_the_newest_waits(faces: MainFaces, main: MainStream):
    first, other = Asked(main, 17.0, 60.0, final=False), Asked(main, 17.0, 60.0, final=False, track=2)
    faces.put(first.lookup)
    faces.put(other.lookup)
    second = Asked(main, 17.5, 60.0, final=False)
    faces.put(second.lookup)
    assert first.fell_back() and not other.answers and not second.answers
    assert reasons(main) == {}
    for n in range(70):
        faces.put(Asked(main, 17.0, 60.0, final=True, track=10 + n).lookup)
    assert other.fell_back() and second.fell_back() and reasons(main)["busy"] >= 2


def test_nobody_waits_for_one_that_ends(main: MainStream):
    with MainFaces(lambda line: None, lambda seconds: None) as faces:
        asked = Asked(main, 17.0, 60.0)
        faces.put(asked.lookup)
    assert asked.fell_back()


def test_what_may_still_be_kept_is_held_and_nothing_else(main: MainStream):
    ring = main.ring
    assert ring is not None
    pins = Pins(main)
    pins.hold(1, [12.0, 13.0])
    ring.add([Unit(n * 3600, n % 25 == 0, bytes(100)) for n in range(250, 750)])
    assert ring.units(7.0, 7.1) and ring.units(8.0, 8.1)
    pins.hold(1, [13.0])
    assert pins.of(1, 12.0) is None and pins.of(1, 13.0) is not None
    assert not ring.units(6.5, 6.6) and ring.units(8.0, 8.1)
    release(pins.take(1))
    assert not ring.units(8.0, 8.1)
    pins.hold(1, [28.0])
    main.ring = None
    pins.hold(1, [28.0])
    assert pins.of(1, 28.0) is None
