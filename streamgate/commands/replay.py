"""`streamgate replay`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command, section
from streamgate.commands.options import quiet_option, results_argument, sink_retry_option
from streamgate.commands.signals import INTERRUPTED, handling
from streamgate.errors import DeliveryError, SinkError, SourceError, display

if TYPE_CHECKING:
    from streamgate.commands.progress import ReplayDisplay
    from streamgate.finals import FinishedRun, FinishedSource
    from streamgate.sinks.courier import Courier
    from streamgate.sinks.redisstream import RedisStream

_NAMED = 5
"""Damages of a source that are named; the rest is counted."""


@click.command(cls=Command, epilog="streamgate replay faces --sink redis://localhost:6379/0")
@results_argument
@section("Events")(
    "--sink", "url", required=True, metavar="URL", help="redis://HOST:PORT/DB, rediss://... (TLS) or unix://PATH."
)
@sink_retry_option
@quiet_option
def replay(out: Path, url: str, sink_retry: float, quiet: bool) -> int:
    """Send the events of a finished run again.

    The events have the same ids as before, by which consumers recognize repetitions. What cannot be read is reported,
    and the rest is sent.
    """
    from streamgate.commands.progress import ReplayDisplay
    from streamgate.finals import FinishedRun, unchanged
    from streamgate.sinks.courier import Courier
    from streamgate.sinks.redisstream import MAXLEN, RedisStream

    stream = RedisStream(url)
    with ReplayDisplay(quiet=quiet) as shown, unchanged(out):
        run = FinishedRun.read(out)
        for problem in run.problems:
            shown.error(problem)
        if run.finals > MAXLEN:
            shown.warn(
                f"{run.finals} finals: the stream keeps about {MAXLEN}, so that the first are gone "
                "unless a consumer takes them meanwhile"
            )
        courier = Courier(stream, retry_seconds=sink_retry, say=shown.warn)
        try:
            with _interruptible(stream.hurry):
                return _send(run, stream, courier, shown)
        finally:
            stream.close()


@contextmanager
def _interruptible(hurry: threading.Event) -> Iterator[None]:
    """Ctrl-C sets `hurry` too: should the exception get lost in a callback, no fault is waited for any more."""

    def handle(signum: int, frame: FrameType | None) -> None:
        hurry.set()
        raise KeyboardInterrupt

    with handling([signal.SIGINT], handle):
        yield


def _send(run: FinishedRun, stream: RedisStream, courier: Courier, shown: ReplayDisplay) -> int:
    """Send everything; returns the exit code. Raises SinkError, DeliveryError."""
    problem = courier.reach()
    if stream.hurry.is_set():
        raise KeyboardInterrupt
    if problem:
        raise SinkError(f"cannot use {stream.location}: {problem}; nothing was sent")
    began = time.perf_counter()
    sent, whole = 0, not run.problems
    shown.start(run.finals)
    try:
        for number, source in enumerate(run.sources, 1):
            damages = _Damages()
            outcome = courier.deliver(shown.counted(source.events(damages.add)))
            sent += outcome.sent
            if stream.hurry.is_set():
                raise KeyboardInterrupt
            if outcome.problem is not None:
                raise DeliveryError(
                    f"{stream.location}: {sent} of {run.finals} finals delivered, up to {outcome.sent} of "
                    f"{source.finals} of {source.location}; the rest not: {outcome.problem}. The same command sends "
                    "all of them again"
                )
            shown.line(f"[{number}/{len(run.sources)}] {source.location}: {outcome.sent} finals sent")
            if damages:
                whole = False
                shown.error(damages.text(source, outcome.sent))
    except KeyboardInterrupt:
        shown.error(f"interrupted: about {shown.taken} of {run.finals} finals were sent to {stream.location}")
        return INTERRUPTED
    shown.line(
        f"{sent} of {run.finals} finals of {len(run.sources)} sources sent to {stream.location} "
        f"({time.perf_counter() - began:.1f} s)"
    )
    if whole:
        return 0
    return 1 if sent or any(not source.finals for source in run.sources) else SourceError.exit_code


class _Damages:
    """What of a source could not be read: the first few in words, all counted."""

    def __init__(self) -> None:
        self._count = 0
        self._first: list[str] = []

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, words: str) -> None:
        self._count += 1
        if len(self._first) < _NAMED:
            self._first.append(words)

    def text(self, source: FinishedSource, sent: int) -> str:
        more = f" and {self._count - len(self._first)} more" if self._count > len(self._first) else ""
        lost = max(0, source.finals - sent)
        return (
            f"{display(source.folder)}: {lost} of {source.finals} finals cannot be sent: "
            f"{', '.join(self._first)}{more}; run its source again"
        )
