"""The HTTP server of `serve`, in its own thread (needs the `serve` extra; see web_app.py)."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from streamgate.errors import SinkError, UsageError
from streamgate.service.auth import SHORT_TOKEN, TOKEN_VARIABLE, Access, checked_token, is_loopback
from streamgate.service.error_log import error_log, print_line
from streamgate.service.state import ServiceState

if TYPE_CHECKING:
    import uvicorn

    from streamgate.service.connections import Connections, Listener
    from streamgate.service.events import EventStreams

_BACKLOG = 512
_START_SECONDS = 20.0
_STOP_SECONDS = 1
_SEND_BUFFER = 128 << 10
"""Send buffer per peer in bytes (the kernel doubles it). With this limit, a peer that does not read uses little memory
and is soon detected as slow; by default, the kernel would buffer megabytes for each peer."""
_STALLED_MS = 60_000
"""The kernel disconnects a peer that has not acknowledged sent data for this long."""


@contextmanager
def serving(
    state: ServiceState, address: str, token: str | None = None, log: Callable[[str], None] = print_line
) -> Iterator[str]:
    """Serve `state` at "HOST:PORT" while the `with` block runs; yields the base URL, with the actual port, once the
    server listens.

    When the block is left, open event streams are ended, responses in progress are finished, and the server is closed.
    The server handles no signals.

    Args:
        address: name or address to listen on, and a port; port 0 selects a free port. Any host other than loopback
            requires a token.
        token: the token that users and Prometheus must send; empty for no authentication. By default, the value of
            the environment variable STREAMGATE_TOKEN is used.
        log: called with one line per problem, at most once a minute for each kind of problem.

    Raises:
        UsageError: a required token is missing, the address does not belong to this machine, or the `serve` extra is
            not installed.
        SinkError: the port is in use, or listening on it is not permitted.
    """
    host, port = parse_address(address)
    token = checked_token(host, os.environ.get(TOKEN_VARIABLE) if token is None else token)
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(f"--http needs {error.name}: pip install 'streamgate[serve]'") from None
    if token is not None and len(token) < SHORT_TOKEN:
        log(
            f"{TOKEN_VARIABLE} has fewer than {SHORT_TOKEN} characters and could be guessed; use the output of "
            "`openssl rand -hex 24`"
        )
    listener = _listen(host, port)
    name, port = listener.getsockname()[:2]
    url = f"http://{f'[{name}]' if ':' in name else name}:{port}"
    report = listener.log = error_log(state, log)
    connections, events, server = _build(state, Access(token) if token else None, is_loopback(host), report)
    loop: asyncio.AbstractEventLoop | None = None
    started = threading.Event()

    async def main() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: _report_fault(context, report))
        watching = asyncio.create_task(connections.watch())
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        started.set()
        await serving
        watching.cancel()

    def run() -> None:
        try:
            asyncio.run(main())
        finally:
            started.set()

    thread = threading.Thread(target=run, name="http", daemon=True)
    thread.start()
    try:
        if not started.wait(_START_SECONDS) or not thread.is_alive():
            raise SinkError(f"the HTTP server at {url} did not start")
        yield url
    finally:
        if loop is not None and thread.is_alive():
            with suppress(RuntimeError):  # the loop may have just ended
                loop.call_soon_threadsafe(events.stop)
        server.should_exit = True
        thread.join(_STOP_SECONDS + 3.0)
        listener.close()


def _report_fault(context: dict[str, Any], report: Callable[..., None]) -> None:
    """Exception handler for asyncio that logs one line instead of a traceback."""
    error = context.get("exception")
    if not isinstance(error, OSError):  # OSError: the peer has disconnected
        report(f"internal error ({type(error).__name__}: {context.get('message')}); please report it", "internal")


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT", "[IPV6]:PORT" or "PORT"; the default host is 127.0.0.1. Raises UsageError."""
    host, _, port = address.strip().rpartition(":")
    if port.isascii() and port.isdigit() and int(port) <= 65535 and not (":" in host and not host.startswith("[")):
        return host.strip("[]") or "127.0.0.1", int(port)
    raise UsageError(f"--http {address}: write the address as HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080")


def _build(
    state: ServiceState, access: Access | None, loopback: bool, report: Callable[..., None]
) -> tuple[Connections, EventStreams, uvicorn.Server]:
    import uvicorn

    from streamgate.service.connections import BURST, Connections
    from streamgate.service.events import EventStreams
    from streamgate.service.guard import guarded
    from streamgate.service.web_app import build_application

    connections = Connections(state, report)
    events = EventStreams(state, login=access is not None, most=connections.most_each)
    app = guarded(
        build_application(state, access, events),
        access=access,
        loopback=loopback,
        fault=report,
    )
    config = uvicorn.Config(
        app, http=connections.protocol(), lifespan="off", ws="none", log_config=None, log_level="critical",
        access_log=False, server_header=False, backlog=BURST, timeout_graceful_shutdown=_STOP_SECONDS,
    )  # fmt: skip
    return connections, events, uvicorn.Server(config)


def _listen(host: str, port: int) -> Listener:
    from streamgate.service.connections import Listener

    shown = f"--http {f'[{host}]' if ':' in host else host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UsageError(f"{shown}: unknown host; give a name or address of this machine") from None
    listener = Listener(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MS)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SinkError(
                f"{shown}: the port is in use by another program; stop that program or choose another port"
            ) from None
        if error.errno == errno.EACCES:
            raise SinkError(f"{shown}: no permission to listen on this port; choose one above 1023") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"{shown}: this machine has no such address; try 127.0.0.1 or 0.0.0.0") from None
        raise SinkError(f"{shown}: cannot listen: {error.strerror or error}") from None
    return listener
