"""What never comes back must not hang a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from streamgate.errors import SourceError
from streamgate.runtime.prefetch import prefetch
from streamgate.runtime.watchdog import within


class Thing:
    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def eventually(true: Callable[[], bool]) -> bool:
    for _ in range(500):
        if true():
            return True
        time.sleep(0.01)
    return False


def test_values_and_errors_come_through() -> None:
    assert within(60, lambda: 7, "x") == 7
    with pytest.raises(KeyError):
        within(60, lambda: {}["nothing"], "x")


def test_a_call_that_hangs_is_given_up_and_closed_when_it_comes_back() -> None:
    go, thing = threading.Event(), Thing()

    def hang() -> Thing:
        go.wait(60)
        return thing

    with pytest.raises(SourceError, match=r"clip\.mp4: could not be opened within 0\.05 s"):
        within(0.05, hang, "clip.mp4")
    assert not thing.closed.is_set()
    go.set()
    assert eventually(thing.closed.is_set)


def test_frames_that_stop_coming_end_the_reading() -> None:
    go = threading.Event()

    def frames() -> Iterator[int]:
        yield 1
        yield 2
        go.wait(60)

    seen = []
    with pytest.raises(SourceError, match="no frame came"):
        for one in prefetch(frames(), 4, timeout_s=0.1, late=SourceError("no frame came")):
            seen.append(one)
    assert seen == [1, 2]
    go.set()


def test_a_slow_consumer_is_no_stall() -> None:
    seen = []
    for one in prefetch(iter(range(5)), 1, timeout_s=0.2, late=SourceError("late")):
        time.sleep(0.25)
        seen.append(one)
    assert seen == list(range(5))
