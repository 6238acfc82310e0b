"""Signals that a command answers itself while it works."""

from __future__ import annotations

import atexit
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C or SIGTERM ended."""
_STOPPING = (signal.SIGINT, signal.SIGTERM)
_ONE_REQUEST_S = 0.5
"""`timeout`, and supervisors of process groups, send one signal twice in a row: that is one request to stop."""

_latest: tuple[int, float] | None = None
"""The latest request to stop that came to this process, whoever answered it, and when."""
_interrupted = threading.Event()


def answer_signals() -> None:
    """From now on Ctrl-C and SIGTERM raise KeyboardInterrupt, so that what is half done is cleaned up.

    Signals that whoever started us had ignored stay so.
    """
    for number in _STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    sys.unraisablehook = _answer_again
    # The work is done and its exit code known: the second half of a request must not change it.
    atexit.register(_ignore)


def was_interrupted() -> bool:
    """Whether a signal has come that `answer_signals` answers: a library may have made another error of it."""
    return _interrupted.is_set()


def _repeats(number: int) -> bool:
    """Whether the signal `number` belongs to the latest request to stop; it is the latest from now on otherwise."""
    global _latest
    now = time.monotonic()
    if _latest is not None and number == _latest[0] and now - _latest[1] <= _ONE_REQUEST_S:
        return True
    _latest = (number, now)
    return False


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _repeats(number):
        _interrupted.set()
        raise KeyboardInterrupt


def _answer_again(unraisable: sys.UnraisableHookArgs) -> None:
    """An interrupt that came where none can be raised, in a callback of an import for example, comes once more."""
    global _latest
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        _latest = None
        signal.raise_signal(signal.SIGINT)
    else:
        sys.__unraisablehook__(unraisable)


def _ignore() -> None:
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def handling(numbers: Iterable[int], handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """`handle` answers the signals while the block runs; outside the main thread, which cannot, nothing changes.

    A request to stop that comes as the same signal twice in a row reaches it once.
    """

    def once(number: int, frame: FrameType | None) -> None:
        if number not in _STOPPING or not _repeats(number):
            handle(number, frame)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, once) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
