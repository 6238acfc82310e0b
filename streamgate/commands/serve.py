"""`streamgate serve`."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from types import FrameType

from streamgate.commands.signals import handling
from streamgate.errors import UsageError, scrub
from streamgate.service.memory import settle_allocator
from streamgate.service.settings import ServeRequest, Settings, read_settings
from streamgate.service.state import ServiceState, utc_text
from streamgate.service.supervisor import Service

INTERRUPTED = 130
DEFAULT_HTTP = "127.0.0.1:8080"
HTTP_OFF = "off"


def serve_command(request: ServeRequest) -> int:
    """Watch streams until SIGTERM (exit 0) or Ctrl-C (130). SIGHUP reads the configuration file again.

    Raises StreamgateError for what keeps the service from starting.
    """
    settings = read_settings(request)
    settle_allocator()
    state = ServiceState()
    log = Log()
    if request.config_file is not None:
        state.note(config_read_at=datetime.now(UTC))
    with _signals() as signals, ExitStack() as stack:
        address = stack.enter_context(_http(settings, state, log))
        service = stack.enter_context(Service(settings, state, log))
        where = f", to be seen at {address}" if address else ""
        log(f"watching {len(settings.streams)} stream(s){where}")
        service.run(signals.stop, signals.reload, lambda: _read_again(request))
        log("stopping: the last faces are written")
    log("stopped")
    _leave_hanging_readers(signals.code)
    return signals.code


class Log:
    """Writes lines with the time to stderr, no secret in them. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()

    def __call__(self, text: str) -> None:
        line = f"{utc_text(datetime.now(UTC))} {' '.join(scrub(text).split())}\n"
        with self._mutex:
            sys.stderr.write(line)
            sys.stderr.flush()


class _Signals:
    def __init__(self) -> None:
        self.stop = threading.Event()
        self.reload = threading.Event()
        self.code = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload.set()
        elif self.stop.is_set():
            raise KeyboardInterrupt
        else:
            self.code = INTERRUPTED if number == signal.SIGINT else 0
            self.stop.set()


@contextmanager
def _signals() -> Iterator[_Signals]:
    signals = _Signals()
    with handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signals.handle):
        yield signals


def _read_again(request: ServeRequest) -> Settings:
    if request.config_file is None:
        raise UsageError("there is no file to read again: the service was started without --config")
    return read_settings(request)


@contextmanager
def _http(settings: Settings, state: ServiceState, log: Log) -> Iterator[str | None]:
    """The page and its APIs while the block runs; gives their address, None where they are off."""
    if settings.http == HTTP_OFF:
        yield None
        return
    if settings.http is None and importlib.util.find_spec("fastapi") is None:
        log("no page and no metrics: they need `pip install 'streamgate[serve]'` (--http off says it is wanted so)")
        yield None
        return
    from streamgate.service.http import serving

    page: AbstractContextManager[str] = serving(state, settings.http or DEFAULT_HTTP)
    with page as address:
        yield address


def _leave_hanging_readers(code: int) -> None:
    """A reader may wait in the network for seconds yet; nothing it could still do is wanted."""
    busy = ("streamgate-read-", "streamgate-watch-")
    if any(thread.name.startswith(busy) for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
