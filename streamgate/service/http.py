"""The HTTP side of `serve`: a server in a thread of its own (needs the `serve` extra; see web_app.py)."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from streamgate.errors import SinkError, UsageError
from streamgate.service.auth import SHORT_TOKEN, TOKEN_VARIABLE, Access, Throttle, checked_token, is_loopback
from streamgate.service.error_log import ErrorLog, print_line
from streamgate.service.state import ServiceState

if TYPE_CHECKING:
    import uvicorn

    from streamgate.service.connections import Connections, Listener
    from streamgate.service.events import EventStreams

_BACKLOG = 512
_START_SECONDS = 20.0
_STOP_SECONDS = 1
_SEND_BUFFER = 128 << 10
"""Bytes in the kernel for one peer (which doubles them): one that does not read holds little memory and is soon found
slow; left alone, the kernel would take megabytes for each."""
_STALLED_MS = 60_000
"""A peer that has not taken what was sent to it for so long is disconnected by the kernel."""


@contextmanager
def serving(
    state: ServiceState, address: str, token: str | None = None, log: Callable[[str], None] = print_line
) -> Iterator[str]:
    """Serve `state` at "HOST:PORT" while the block runs; gives the base URL ("http://127.0.0.1:8080").

    See `serve_http`; the token comes from the environment's STREAMGATE_TOKEN when it is not given.
    """
    host, port = parse_address(address)
    service = serve_http(state, host, port, os.environ.get(TOKEN_VARIABLE) if token is None else token, log)
    try:
        yield service.url
    finally:
        service.stop()


def serve_http(
    state: ServiceState, host: str, port: int, token: str | None, log: Callable[[str], None] = print_line
) -> HttpService:
    """Start serving and return at once when it listens.

    Args:
        host: name or address to listen on; another than loopback needs a token.
        port: 0 takes a free one.
        token: what users and Prometheus must present; None or empty asks nobody.
        log: takes a line about trouble, each kind of it once a minute.

    Raises:
        UsageError: no token where one is needed, an address that is not this machine's, or the `serve` extra
            is not installed.
        SinkError: the port is in use, or may not be listened on.
    """
    token = checked_token(host, token)
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(f"--http needs {error.name}: pip install 'streamgate[serve]'") from None
    if token is not None and len(token) < SHORT_TOKEN:
        log(
            f"{TOKEN_VARIABLE} has fewer than {SHORT_TOKEN} letters and may be guessed; take the output of "
            "`openssl rand -hex 24`"
        )
    return HttpService(state, _listen(host, port), host, token, log)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT", "[IPV6]:PORT" or "PORT" (then 127.0.0.1). Raises UsageError."""
    host, _, port = address.strip().rpartition(":")
    if port.isascii() and port.isdigit() and int(port) <= 65535 and not (":" in host and not host.startswith("[")):
        return host.strip("[]") or "127.0.0.1", int(port)
    raise UsageError(f"--http {address}: write it as HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080")


class HttpService:
    """A server that runs until `stop`. It takes no signals."""

    def __init__(
        self, state: ServiceState, listener: Listener, host: str, token: str | None, log: Callable[[str], None]
    ) -> None:
        name, port = listener.getsockname()[:2]
        self.url = f"http://{f'[{name}]' if ':' in name else name}:{port}"
        """Base URL, with the real port."""
        self._listener = listener
        self._errors = ErrorLog(state, log)
        listener.log = self._errors.log
        self._connections, self._events, self._server = _build(
            state, Access(token) if token else None, is_loopback(host), self._errors
        )
        self._loop: Any = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        if not self._started.wait(_START_SECONDS) or not self._thread.is_alive():
            self.stop()
            raise SinkError(f"the server at {self.url} did not start")

    def stop(self) -> None:
        """End open event streams, finish what is being answered, and close; stopping twice is fine."""
        if self._loop is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._events.stop)
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS + 3.0)
        self._listener.close()

    def _run(self) -> None:
        import asyncio

        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._loop.set_exception_handler(lambda loop, context: self._errors.handle(context))
            watching = asyncio.create_task(self._connections.watch())
            serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.01)
            self._started.set()
            await serving
            watching.cancel()

        try:
            asyncio.run(main())
        finally:
            self._started.set()


def _build(
    state: ServiceState, access: Access | None, loopback: bool, errors: ErrorLog
) -> tuple[Connections, EventStreams, uvicorn.Server]:
    import uvicorn

    from streamgate.service.connections import BURST, ConnectionLimits, Connections
    from streamgate.service.events import EventStreams
    from streamgate.service.guard import Guard
    from streamgate.service.web_app import build_application

    limits = ConnectionLimits.here()
    connections = Connections(state, errors.log, limits)
    throttle, events = Throttle(), EventStreams(state, login=access is not None, most=limits.most_each)
    app = Guard(
        build_application(state, access, throttle, events),
        access=access,
        throttle=throttle,
        loopback=loopback,
        fault=errors.log,
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
        raise UsageError(f"{shown}: this host is not known; give a name or address of this machine") from None
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
            raise SinkError(f"{shown}: another program listens on this port; stop it or choose another port") from None
        if error.errno == errno.EACCES:
            raise SinkError(f"{shown}: no permission to listen on this port; choose one above 1023") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"{shown}: this machine has no such address; try 127.0.0.1 or 0.0.0.0") from None
        raise SinkError(f"{shown}: cannot listen: {error.strerror or error}") from None
    return listener
