"""Signals that a command answers itself while it works."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended."""
_ONE_REQUEST_S = 0.5
"""`timeout`, and supervisors of process groups, send one signal twice in a row: that is one request to stop."""


class StopRequest:
    """Whether a command was asked to stop, and whether it was asked again: then it stops at once."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    @property
    def made(self) -> bool:
        return self._first is not None

    def again(self, number: int) -> bool:
        """Note the signal `number`; True for a second request. For signal handlers."""
        now = time.monotonic()
        if self._first is None:
            self._first = (number, now)
            return False
        return number != self._first[0] or now - self._first[1] > _ONE_REQUEST_S


@contextmanager
def handling(numbers: Iterable[int], handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """`handle` answers the signals while the block runs; outside the main thread, which cannot, nothing changes."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
