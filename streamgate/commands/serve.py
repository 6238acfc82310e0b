"""`streamgate serve`."""

from __future__ import annotations

import importlib.util
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from streamgate.commands.help import Command, section
from streamgate.commands.options import (
    LOCAL_TEXT,
    PATH,
    complete_devices,
    complete_folders,
    complete_models,
    complete_presets,
)
from streamgate.commands.signals import INTERRUPTED, handling
from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import UsageError, one_line
from streamgate.redaction import scrub

if TYPE_CHECKING:
    from streamgate.service.settings import Settings
    from streamgate.service.state import ServiceState

DEFAULT_HTTP = "127.0.0.1:8080"
HTTP_OFF = "off"
_OPEN_FILES = 4096
_LINE = 2000
"""Maximum length of a log line; lines may quote messages from cameras and servers."""

_LOG_MUTEX = threading.Lock()

_streams = section("Streams")
_results = section("Where faces go")
_page = section("Web page")
_settings = section("Settings and networks")


# Options have no defaults here, so that the --config file can set the options that are not given.
@click.command(
    cls=Command,
    epilog="""
    streamgate serve --rtsp door=rtsp://user:password@10.0.0.7/main --out faces
    streamgate serve --rtsp rtsp://10.0.0.7/main --redis redis://localhost:6379/0
    streamgate serve --config streams.toml
    """,
)
@_streams(
    "--rtsp", multiple=True, metavar="[NAME=]URL|MAIN,SUB",
    help="A stream to watch: an rtsp(s) or http(s) URL, or a file, which is played in real time. MAIN,SUB are the main "
    "stream and substream of a camera: faces are detected in SUB and cropped from MAIN. Repeatable.",
)
@_streams(
    "--config", "config_file", metavar="FILE", type=PATH, help="TOML file with streams and settings; SIGHUP reloads it."
)
@_results("--redis", metavar="URL", help="Send events to redis://HOST:PORT/DB.")
@_results(
    "-o", "--out", metavar="DIR", type=LOCAL_TEXT, shell_complete=complete_folders,
    help="Write faces to this folder. [default without --redis: streamgate-live]",
)
@_results("--max-days", type=float, metavar="N", help="Remove faces from the output folder after N days.")
@_results("--max-gb", type=float, metavar="N", help="Remove the oldest faces when the output folder exceeds N GB.")
@_results(
    "--spool", metavar="DIR", type=LOCAL_TEXT, shell_complete=complete_folders,
    help="Folder for events that Redis has not yet accepted. [default: in --out, or streamgate-spool]",
)
@_results(
    "--spool-mb", type=int, metavar="N",
    help="Maximum size of the spool in MB; when it is exceeded, the oldest events are dropped. [default: 1024]",
)
@_page("--http", metavar="HOST:PORT|off", help="Address of the web page, API and metrics. [default: 127.0.0.1:8080]")
@_settings(
    "--preset", metavar="NAME|FILE", shell_complete=complete_presets, help="Settings to start from. [default: live]"
)
@_settings(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Set a key of the preset for all streams. Repeatable.",
)
@_settings(
    "--models", metavar="SET[,SET]", shell_complete=complete_models,
    help=f"Weights to use. [default: {DEFAULT_MODELS}]",
)
@_settings(
    "--device", metavar="auto|cpu|cuda[:N]", shell_complete=complete_devices,
    help="Where the networks run. [default: auto]",
)
@_settings(
    "--decode", type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where video is decoded: auto means the CPU, cuda means the GPU of --device. [default: auto]",
)
def serve(rtsp: tuple[str, ...], config_file: Path | None, settings: tuple[str, ...], **flags: Any) -> int:
    """Watch cameras continuously: the best faces go to Redis, to disk and to a web page.

    SIGTERM stops the service (exit code 0); the faces found so far are still written.
    """
    import cv2

    from streamgate.service.memory import settle_allocator
    from streamgate.service.settings import read_settings, service_flags
    from streamgate.service.state import ServiceState
    from streamgate.service.supervisor import Service

    read = partial(read_settings, rtsp=rtsp, config_file=config_file, table=service_flags(flags), settings=settings)
    wanted = read()
    settle_allocator()
    # The camera threads already use all cores; threads of OpenCV would only add busy waiting.
    cv2.setNumThreads(1)
    _allow_open_files()
    state = ServiceState(wanted.config.specs)
    if config_file is not None:
        state.note(config_read_at=datetime.now(UTC))
    with _signals() as (stop, reload, stopped_by), ExitStack() as stack:
        address = stack.enter_context(_http(wanted, state))
        service = stack.enter_context(Service(wanted, state, log))
        where = f", web page at {address}" if address else ""
        log(f"watching {len(wanted.streams)} stream(s){where}")
        service.run(stop, reload, read if config_file else _nothing_to_read)
        log("stopping: writing the last faces")
    log("stopped")
    code = INTERRUPTED if signal.SIGINT in stopped_by else 0
    _leave_hanging_readers(code)
    return code


def log(text: str) -> None:
    """Write a line with a timestamp to stderr, with secrets redacted. Thread-safe."""
    from streamgate.store.records import utc_text

    line = f"{utc_text(datetime.now(UTC))} {one_line(scrub(text), _LINE)}\n"
    with _LOG_MUTEX:
        sys.stderr.write(line)
        sys.stderr.flush()


@contextmanager
def _signals() -> Iterator[tuple[threading.Event, threading.Event, list[int]]]:
    """Handle signals; yields the events `stop` and `reload`, and a list for the signal number that requested the stop.

    A handler may interrupt the main thread while it holds the lock inside `stop` or `reload`, so setting an event in
    the handler could deadlock. The handler therefore puts the event into a lock-free queue, and another thread sets it.
    """
    stop, reload = threading.Event(), threading.Event()
    stopped_by: list[int] = []
    requests: queue.SimpleQueue[threading.Event | None] = queue.SimpleQueue()

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            requests.put(reload)
        elif stopped_by:
            raise KeyboardInterrupt
        else:
            stopped_by.append(number)
            requests.put(stop)

    def pass_on() -> None:
        while (event := requests.get()) is not None:
            event.set()

    threading.Thread(target=pass_on, name="streamgate-signals", daemon=True).start()
    try:
        with handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), handle):
            yield stop, reload, stopped_by
    finally:
        requests.put(None)


def _nothing_to_read() -> Settings:
    raise UsageError("there is no file to reload, because the service was started without --config")


@contextmanager
def _http(settings: Settings, state: ServiceState) -> Iterator[str | None]:
    """Serve the page and its APIs while the block runs; yields their address, or None if they are off."""
    if settings.http == HTTP_OFF:
        yield None
        return
    if settings.http is None and importlib.util.find_spec("fastapi") is None:
        log("no web page and no metrics, because FastAPI is not installed: pip install 'streamgate[serve]' (--http off "
            "hides this message)")
        yield None
        return
    from streamgate.service.http import serving

    page: AbstractContextManager[str] = serving(state, settings.http or DEFAULT_HTTP, log=log)
    with page as address:
        yield address


def _allow_open_files() -> None:
    """Raise the limit of open files: 1024 is too few for many cameras and a page with many viewers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _leave_hanging_readers(code: int) -> None:
    """Exit without waiting for readers that are still blocked by the network; their results are no longer needed."""
    busy = ("streamgate-read-", "streamgate-watch-", "streamgate-main-")
    if any(thread.name.startswith(busy) for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
