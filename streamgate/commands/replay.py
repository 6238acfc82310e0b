"""`streamgate replay`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from streamgate.commands.signals import handling
from streamgate.errors import DeliveryError, SinkError, SourceError, display
from streamgate.finals import FinishedRun, FinishedSource, unchanged
from streamgate.sinks.courier import RETRY_SECONDS, Courier
from streamgate.sinks.redisstream import MAXLEN, RedisStream

INTERRUPTED = 130
_NAMED = 5
"""Damages of a source that are named; the rest is counted."""


def replay_command(out: Path, url: str, *, retry_seconds: float = RETRY_SECONDS, quiet: bool = False) -> int:
    """Send every event of a finished run to the stream again; returns the exit code.

    What cannot be read is named and the rest sent (1; 3 when nothing could be). Raises SourceError for a folder without
    results of a run, SinkError when the server cannot be used or does not take everything.
    """
    stream = RedisStream(url)
    with _Display(quiet) as shown, unchanged(out):
        run = FinishedRun.read(out)
        for problem in run.problems:
            shown.error(problem)
        if run.finals > MAXLEN:
            shown.warn(
                f"{run.finals} finals: the stream keeps about {MAXLEN}, so that the first are gone "
                "unless a consumer takes them meanwhile"
            )
        hurry = threading.Event()
        courier = Courier(stream, retry_seconds=retry_seconds, hurry=hurry, say=shown.warn)
        try:
            with _interruptible(hurry):
                return _send(run, stream, courier, shown, hurry)
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


def _send(
    run: FinishedRun, stream: RedisStream, courier: Courier, shown: _Display, hurry: threading.Event
) -> int:
    problem = courier.reach()
    if hurry.is_set():
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
            if hurry.is_set():
                raise KeyboardInterrupt
            if outcome.problem is not None:
                raise DeliveryError(
                    f"{stream.location}: {sent} of {run.finals} finals delivered, up to {outcome.sent} of "
                    f"{source.finals} of {source.location}; the rest not: {outcome.problem}. The same command sends "
                    "all of them again"
                )
            shown.source(f"[{number}/{len(run.sources)}] {source.location}: {outcome.sent} finals sent")
            if damages:
                whole = False
                shown.error(damages.text(source, outcome.sent))
    except KeyboardInterrupt:
        shown.error(f"interrupted: about {shown.taken} of {run.finals} finals were sent to {stream.location}")
        return INTERRUPTED
    shown.source(
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


class _Display:
    """Everything goes to stderr: a bar on a terminal, a line a source otherwise."""

    def __init__(self, quiet: bool) -> None:
        self.taken = 0
        """Events handed over for sending."""
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, total: int) -> None:
        if not self._quiet and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("sending"),
                BarColumn(),
                TextColumn("{task.completed:.0f} of {task.total:.0f} finals"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.add_task("", total=total)
            self._bar.start()

    def counted(self, events: Iterable[bytes]) -> Iterator[bytes]:
        for item in events:
            yield item
            self.taken += 1
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=self.taken)

    def source(self, text: str) -> None:
        if not self._quiet:
            self._console.print(escape(text))

    def warn(self, text: str) -> None:
        if not self._quiet:
            self._console.print(f"[yellow]streamgate: warning:[/yellow] {escape(text)}")

    def error(self, text: str) -> None:
        self._console.print(f"[red]streamgate:[/red] {escape(text)}")
