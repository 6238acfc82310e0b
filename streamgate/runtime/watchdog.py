"""A call with a time limit, in a thread that is abandoned if it hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from typing import TypeVar

from streamgate.errors import SourceError

Value = TypeVar("Value")

MARGIN_S = 30.0
"""Added to FFmpeg's own limit: for cases that FFmpeg cannot end itself, such as a disk that never responds."""


def within(seconds: float, call: Callable[[], Value], location: str) -> Value:
    """Return what `call` returns, or raise what it raises.

    Raises SourceError when that takes longer than `seconds`; a value that arrives later is closed if it has `close`.
    """
    result: Future[Value] = Future()

    def work() -> None:
        try:
            value = call()
        except BaseException as error:  # passed on: the caller's thread raises it
            with suppress(InvalidStateError):
                result.set_exception(error)
            return
        try:
            result.set_result(value)
        except InvalidStateError:
            # The caller has given up; the result must not stay open.
            with suppress(Exception):
                getattr(value, "close", lambda: None)()

    threading.Thread(target=work, name="streamgate-open", daemon=True).start()
    wait([result], seconds)
    if result.cancel():  # false if the result arrived, even at the last moment
        raise SourceError(
            f"{location}: could not be opened within {seconds:g} s and was skipped; check the file and its disk"
        )
    return result.result()
