"""Parts of a benchmark, each in a separate process: a crash, a hang or a broken GPU affects only that part."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from common import say

from streamgate.errors import one_line

_DYING_S = 10.0
"""How long to wait for the end of a killed process. A process that hangs in a driver may never end."""


@dataclass(slots=True)
class Clock:
    """The time limit `until` (as `time.monotonic()`), and the parts that failed or for which there was no time.

    `slower`: factor by which the time limit of each part is multiplied.
    """

    until: float
    slower: float = 1.0
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, seconds: float, slower: float = 1.0) -> Clock:
        return cls(time.monotonic() + seconds, slower)

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    def allows(self, what: str, seconds: float) -> bool:
        """Return whether that many seconds remain, and record `what` as left out if they do not."""
        if self.left >= seconds:
            return True
        self.left_out.append(f"{what} (no time)")
        return False

    def failed(self, what: str, error: BaseException) -> None:
        """Note the failure and continue with the rest, because GPU time is scarce."""
        words = one_line(str(error), 200) or type(error).__name__
        say(f"{what}: {words}")
        self.left_out.append(f"{what} (failed: {words})")


Part = Callable[[Clock], Iterator[Any]]
"""Yields results until its clock has run out. The function and its results must be picklable."""


class Running:
    """A part that runs in a separate process for at most `most_s` seconds and until the time of `clock` is over."""

    def __init__(self, name: str, part: Part, most_s: float, clock: Clock) -> None:
        self._name, self._clock = name, clock
        self._seconds = min(most_s * clock.slower, clock.left)
        context = get_context("spawn")
        self._results, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(part, self._seconds, theirs), daemon=True)
        self._until = time.monotonic() + self._seconds
        self._process.start()
        theirs.close()

    def results(self) -> Iterator[Any]:
        """The results of the part, as they arrive. What it left out, and why it failed, is recorded in the clock."""
        try:
            while True:
                # The part stops by itself when its current step is finished.
                if not self._results.poll(max(0.0, self._until - time.monotonic())):
                    raise RuntimeError(f"no end within {self._seconds:.0f} s")
                kind, value = self._results.recv()
                if kind == "left out":
                    self._clock.left_out += value
                    return
                if kind == "failed":
                    raise RuntimeError(value)
                yield value
        except EOFError:
            self._process.join(_DYING_S)
            self._clock.failed(self._name, RuntimeError(f"its process ended with {self._process.exitcode}"))
        except RuntimeError as error:
            self._clock.failed(self._name, error)
        finally:
            self.stop()

    def stop(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join(_DYING_S)
        self._results.close()


def results_of(name: str, part: Part, most_s: float, clock: Clock) -> Iterator[Any]:
    """Run a part and yield its results; nothing if there is no time for it."""
    if clock.allows(name, 5.0):
        yield from Running(name, part, most_s, clock).results()


def _work(part: Part, seconds: float, results: Connection) -> None:
    # Standard output is reserved for the result of the whole benchmark.
    os.dup2(2, 1)
    clock = Clock.of(seconds)
    try:
        for value in part(clock):
            results.send(("value", value))
        results.send(("left out", clock.left_out))
    except Exception as error:
        results.send(("failed", one_line(str(error), 200) or type(error).__name__))
    results.close()
