"""Rate-limited logging of HTTP errors: any peer that reaches the server can cause them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from streamgate.service.state import ServiceState

LOGGED_EVERY_S = 60.0
"""Minimum time between two log lines about the same kind of error."""


def print_line(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{text}\n")


class ErrorLog:
    """Counts HTTP errors and logs each kind at most once a minute, since peers can cause them at will."""

    def __init__(self, state: ServiceState, log: Callable[[str], None]) -> None:
        self._state = state
        self._log = log
        self._logged: dict[str, tuple[float, int]] = {}
        """By kind: when it was last logged (monotonic) and how many were suppressed since."""

    def log(self, text: str, kind: str | None = None) -> None:
        """Count an error and log it unless its kind was logged recently; by default a kind is the text's beginning."""
        self._state.faults.labels("http").inc()
        kind = kind or text[:20]
        now = time.monotonic()
        logged, unlogged = self._logged.get(kind, (now - LOGGED_EVERY_S, 0))
        if now - logged < LOGGED_EVERY_S:
            self._logged[kind] = logged, unlogged + 1
            return
        more = f" ({unlogged} more like this in the last {now - logged:.0f} s)" if unlogged else ""
        self._logged[kind] = now, 0
        self._log(f"http: {text}{more}")

    def handle(self, context: dict[str, Any]) -> None:
        """asyncio's exception handler: logs one line instead of a traceback."""
        error = context.get("exception")
        if not isinstance(error, OSError):  # a peer that has left
            self.log(f"internal error ({type(error).__name__}: {context.get('message')}); please report it", "internal")
