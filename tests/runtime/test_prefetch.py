"""Decoding ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from streamgate.runtime.prefetch import prefetch


def test_items_come_in_order() -> None:
    assert list(prefetch(iter(range(100)), 4)) == list(range(100))


def test_no_more_than_its_depth_is_ahead() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    ahead = prefetch(items(), 3)
    next(ahead)
    time.sleep(0.3)
    assert len(made) <= 1 + 3 + 1
    ahead.close()


def test_an_exception_arrives_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ahead = prefetch(items(), 4)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_stopping_early_closes_the_items_and_the_thread() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    ahead = prefetch(items(), 2)
    next(ahead)
    ahead.close()
    assert closed.is_set()
    assert not [one for one in threading.enumerate() if one.name == "streamgate-decode"]
