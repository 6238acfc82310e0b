"""What goes wrong on the HTTP side, told without a flood: whoever can reach it can make it go wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from streamgate.service.state import ServiceState

SAID_EVERY_S = 60.0
"""Between two lines of the log about the same trouble."""


def print_line(text: str) -> None:
    """Say a line on stderr."""
    sys.stderr.write(f"{text}\n")


class Troubles:
    """Counts what goes wrong on the HTTP side, and says each kind of it once a minute: peers can cause it at will."""

    def __init__(self, state: ServiceState, log: Callable[[str], None]) -> None:
        self._state = state
        self._log = log
        self._said: dict[str, tuple[float, int]] = {}
        """By kind, when it was said (monotonic) and how often it was not said since."""

    def say(self, text: str, kind: str | None = None) -> None:
        """It happened; texts of one kind (by default: that begin alike) count together."""
        self._state.faults.labels("http").inc()
        kind = kind or text[:20]
        now = time.monotonic()
        said, unsaid = self._said.get(kind, (now - SAID_EVERY_S, 0))
        if now - said < SAID_EVERY_S:
            self._said[kind] = said, unsaid + 1
            return
        more = f" ({unsaid} more like this in the last {now - said:.0f} s)" if unsaid else ""
        self._said[kind] = now, 0
        self._log(f"http: {text}{more}")

    def met(self, context: dict[str, Any]) -> None:
        """What asyncio would log with a traceback."""
        error = context.get("exception")
        if not isinstance(error, OSError):  # a peer that has left
            self.say(f"internal error ({type(error).__name__}: {context.get('message')}); please report it", "internal")
