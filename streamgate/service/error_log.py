"""Logs HTTP errors with a rate limit, because any peer that reaches the server can cause errors."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from streamgate.service.state import ServiceState

LOGGED_EVERY_S = 60.0
"""Minimum time between two log lines about the same kind of error."""


def print_line(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{text}\n")


def error_log(state: ServiceState, log: Callable[[str], None]) -> Callable[..., None]:
    """A function `(text, kind=None)` that counts an HTTP error and logs it unless its kind was logged recently.

    By default, the kind is the beginning of the text.
    """
    last: dict[str, tuple[float, int]] = {}
    """For each kind: when it was last logged (monotonic), and how many errors were not logged since then."""

    def report(text: str, kind: str | None = None) -> None:
        state.faults.labels("http").inc()
        kind = kind or text[:20]
        now = time.monotonic()
        logged, unlogged = last.get(kind, (now - LOGGED_EVERY_S, 0))
        if now - logged < LOGGED_EVERY_S:
            last[kind] = logged, unlogged + 1
            return
        more = f" ({unlogged} more errors of this kind in the last {now - logged:.0f} s)" if unlogged else ""
        last[kind] = now, 0
        log(f"http: {text}{more}")

    return report
