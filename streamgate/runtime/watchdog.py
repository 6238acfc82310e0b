"""A call with a time limit, in a thread that is abandoned if it hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from streamgate.errors import SourceError

Value = TypeVar("Value")

MARGIN_S = 30.0
"""Added to FFmpeg's own limit: for cases that FFmpeg cannot end itself, such as a disk that never responds."""


class _Call(Generic[Value]):
    def __init__(self, call: Callable[[], Value]) -> None:
        self.value: Value | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()
        self._call = call
        self._mutex = threading.Lock()
        self._abandoned = False

    def work(self) -> None:
        try:
            value = self._call()
        except BaseException as error:  # passed on: the caller's thread raises it
            self.error = error
            self.done.set()
            return
        with self._mutex:
            self.value = value
            self.done.set()
            late = self._abandoned
        if late:
            # The caller has given up; the result must not stay open.
            with suppress(Exception):
                getattr(value, "close", lambda: None)()

    def abandon(self) -> bool:
        """Give up on the result; False if it arrived at the last moment."""
        with self._mutex:
            self._abandoned = not self.done.is_set()
            return self._abandoned


def within(seconds: float, call: Callable[[], Value], location: str) -> Value:
    """Return what `call` returns, or raise what it raises.

    Raises SourceError when that takes longer than `seconds`; a value that arrives later is closed if it has `close`.
    """
    running = _Call(call)
    threading.Thread(target=running.work, name="streamgate-open", daemon=True).start()
    if not running.done.wait(seconds) and running.abandon():
        raise SourceError(
            f"{location}: could not be opened within {seconds:g} s and was skipped; check the file and its disk"
        )
    if running.error is not None:
        raise running.error
    return running.value  # type: ignore[return-value]
