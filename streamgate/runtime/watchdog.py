"""Runs a call with a time limit, in a thread that is abandoned if the call hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from typing import TypeVar

from streamgate.errors import SourceError

Value = TypeVar("Value")

MARGIN_S = 30.0
"""Seconds added to FFmpeg's own time limit, for calls that FFmpeg cannot end, such as a read from a disk that never
responds."""


def within(seconds: float, call: Callable[[], Value], location: str) -> Value:
    """Return what `call` returns, or raise what it raises.

    Raises SourceError when the call takes longer than `seconds`; a value that it returns later is closed if it has a
    `close` method.
    """
    result: Future[Value] = Future()

    def work() -> None:
        try:
            value = call()
        except BaseException as error:  # it is raised again in the caller's thread
            with suppress(InvalidStateError):
                result.set_exception(error)
            return
        try:
            result.set_result(value)
        except InvalidStateError:
            # The caller no longer waits for the result, which must not stay open.
            with suppress(Exception):
                getattr(value, "close", lambda: None)()

    threading.Thread(target=work, name="streamgate-open", daemon=True).start()
    wait([result], seconds)
    if result.cancel():  # false if the result has arrived meanwhile
        raise SourceError(
            f"{location}: could not be opened within {seconds:g} s and was skipped; check the file and its disk"
        )
    return result.result()
