"""What goes wrong on the HTTP side, told without a flood: whoever can reach it can make it go wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from streamgate.service.state import ServiceState

LOGGED_EVERY_S = 60.0
"""Between two lines of the log about the same trouble."""


def print_line(text: str) -> None:
    """Say a line on stderr."""
    sys.stderr.write(f"{text}\n")


class ErrorLog:
    """Counts what goes wrong on the HTTP side, and says each kind of it once a minute: peers can cause it at will."""

    def __init__(self, state: ServiceState, log: Callable[[str], None]) -> None:
        self._state = state
        self._log = log
        self._logged: dict[str, tuple[float, int]] = {}
        """By kind, when it was said (monotonic) and how often it was not said since."""

    def log(self, text: str, kind: str | None = None) -> None:
        """It happened; texts of one kind (by default: that begin alike) count together."""
        self._state.faults.add("http")
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
        """What asyncio would log with a traceback."""
        error = context.get("exception")
        if not isinstance(error, OSError):  # a peer that has left
            self.log(f"internal error ({type(error).__name__}: {context.get('message')}); please report it", "internal")
