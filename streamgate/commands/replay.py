"""`streamgate replay`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command, section
from streamgate.commands.options import quiet_option, results_argument, sink_retry_option
from streamgate.commands.signals import INTERRUPTED, handling
from streamgate.errors import DeliveryError, SinkError, SourceError, display
from streamgate.store.folder import DamageLog

if TYPE_CHECKING:
    from streamgate.commands.progress import Display
    from streamgate.sinks.redis_stream import RedisStream
    from streamgate.sinks.replay_source import FinishedSource

_NAMED = 5
"""Maximum number of problems listed per source; further problems are only counted."""


@click.command(cls=Command, epilog="streamgate replay faces --sink redis://localhost:6379/0")
@results_argument
@section("Events")(
    "--sink", "url", required=True, metavar="URL", help="redis://HOST:PORT/DB, rediss://... (TLS) or unix://PATH."
)
@sink_retry_option
@quiet_option
def replay(out: Path, url: str, sink_retry: float, quiet: bool) -> int:
    """Send the `final` events of a finished run again.

    The events have the same ids as before, so that consumers can recognize duplicates. Results that cannot be read
    are reported; the events of all others are sent.
    """
    from streamgate.commands.progress import Display
    from streamgate.sinks.redis_stream import MAXLEN, RedisStream
    from streamgate.sinks.replay_source import finished_sources
    from streamgate.store.lock import unchanged

    stream = RedisStream(url)
    with Display("error" if quiet else "info") as shown, unchanged(out):
        problems: list[str] = []
        sources = finished_sources(out, problems.append)
        for problem in problems:
            shown.error(problem)
        total = sum(source.finals for source in sources)
        if total > MAXLEN:
            shown.warn(
                f"{total} finals will be sent, but the stream keeps only about {MAXLEN} events: the oldest ones "
                "are lost unless a consumer reads them in time"
            )
        try:
            with _interruptible(stream.stopping):
                return _send(sources, stream, sink_retry, shown, whole=not problems)
        finally:
            stream.close()


@contextmanager
def _interruptible(stopping: threading.Event) -> Iterator[None]:
    """Make Ctrl-C also set `stopping`, so that retries end even if a callback swallows the exception."""

    def handle(signum: int, frame: FrameType | None) -> None:
        stopping.set()
        raise KeyboardInterrupt

    with handling([signal.SIGINT, signal.SIGTERM], handle):
        yield


def _send(
    sources: Sequence[FinishedSource], stream: RedisStream, retry_seconds: float, shown: Display, *, whole: bool
) -> int:
    """Send all events and return the exit code. Raises SinkError, DeliveryError."""
    from streamgate.commands.progress import replay_bar
    from streamgate.sinks.retrying_sender import deliver, reach

    problem = reach(stream, retry_seconds=retry_seconds, warn=shown.warn)
    if stream.stopping.is_set():
        raise KeyboardInterrupt
    if problem:
        raise SinkError(f"cannot use {stream.location}: {problem}; nothing was sent")
    began = time.perf_counter()
    sent, total = 0, sum(source.finals for source in sources)
    taken, show = 0, replay_bar(shown, total)

    def counted(events: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal taken
        for item in events:
            yield item
            taken += 1
            show(taken)

    try:
        for number, source in enumerate(sources, 1):
            damages = DamageLog(_NAMED)
            events = counted(source.events(damages.add))
            here, problem = deliver(stream, events, retry_seconds=retry_seconds, warn=shown.warn)
            sent += here
            if stream.stopping.is_set():
                raise KeyboardInterrupt
            if problem is not None:
                raise DeliveryError(
                    f"{stream.location}: only {sent} of {total} finals were delivered, because sending "
                    f"{source.location} failed after {here} of {source.finals}: {problem}. Run the same command "
                    "again to send all of them"
                )
            shown.line(f"[{number}/{len(sources)}] {source.location}: {here} finals sent")
            if damages.count:
                whole = False
                shown.error(_lost(damages, source, here))
    except KeyboardInterrupt:
        shown.error(f"interrupted: about {taken} of {total} finals were sent to {stream.location}")
        return INTERRUPTED
    shown.line(
        f"{sent} of {total} finals of {len(sources)} sources sent to {stream.location} "
        f"({time.perf_counter() - began:.1f} s)"
    )
    if whole:
        return 0
    return 1 if sent or any(not source.finals for source in sources) else SourceError.exit_code


def _lost(damages: DamageLog, source: FinishedSource, sent: int) -> str:
    more = f" and {damages.count - len(damages.words)} more" if damages.count > len(damages.words) else ""
    lost = max(0, source.finals - sent)
    return (
        f"{display(source.out / source.source_id)}: {lost} of {source.finals} finals cannot be sent: "
        f"{', '.join(damages.words)}{more}; run the source again"
    )
