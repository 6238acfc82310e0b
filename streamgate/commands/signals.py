"""Signal handling of commands."""

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
"""Exit code of a command that was ended by Ctrl-C or SIGTERM."""
_STOPPING = (signal.SIGINT, signal.SIGTERM)
_ONE_REQUEST_S = 0.5
"""A signal repeated within this time is still the same request: `timeout` and some supervisors send it twice."""

_latest: tuple[int, float] | None = None
"""The signal number and time of the latest request to stop, whichever handler received it."""
_interrupted = threading.Event()


def answer_signals() -> None:
    """Make Ctrl-C and SIGTERM raise KeyboardInterrupt, so that unfinished work is cleaned up.

    Signals that were ignored when the process started stay ignored.
    """
    for number in _STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    sys.unraisablehook = _answer_again
    # When Python exits, the exit code is final; a second signal must not change it.
    atexit.register(_ignore)


def was_interrupted() -> bool:
    """Whether Ctrl-C or SIGTERM was received, even if a library turned the KeyboardInterrupt into another error."""
    return _interrupted.is_set()


def _repeats(number: int) -> bool:
    """Whether the signal `number` repeats the latest request to stop; if not, it is recorded as the latest request."""
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
    """Repeat an interrupt that arrived where Python cannot raise it, for example in a callback of an import."""
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
    """Handle the signals with `handle` while the block runs; called outside the main thread, this changes nothing.

    If the same signal requests a stop twice within `_ONE_REQUEST_S`, `handle` is called once.
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
