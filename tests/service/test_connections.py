"""Peers that connect and do nothing, or little: they are bounded, and cost nobody else the page."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import NamedTuple
from urllib.parse import urlencode

import pytest

from streamgate.service import connections
from streamgate.service.http import serving
from streamgate.service.state import ServiceState
from support.client import Client, Listener
from support.metric import metric

TOKEN = "correct horse battery staple"
HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"


class Server(NamedTuple):
    url: str
    state: ServiceState


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> Iterator[Server]:
    """A server with room for twelve, six of one address, and little patience."""
    monkeypatch.setattr(connections, "REQUEST_S", 1.5)
    monkeypatch.setattr(connections, "TAKEN_S", 1.5)
    monkeypatch.setattr(connections, "_SWEEP_S", 0.2)
    monkeypatch.setattr(connections, "connection_limits", lambda: (12, 1 << 20))
    state = ServiceState()
    with serving(state, "127.0.0.1:0", TOKEN, said.append) as url:
        yield Server(url, state)


def connect(service: Server, source: str = "127.0.0.1") -> socket.socket:
    port = int(service.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), 20, source_address=(source, 0))


def is_closed(connection: socket.socket, seconds: float = 20.0) -> bool:
    """Whether the other side ends it within that time."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def closed(service: Server) -> dict[str, float]:
    reasons = ("late", "behind", "crowded")
    return {why: metric(service.state, "streamgate_http_closed_total", why=why) for why in reasons}


@pytest.mark.parametrize(
    "sent", [b"", b"\x16\x03\x01", b"GET", HEAD, HEAD + b"X: y", POST, POST + b"token=", b"\r\n"], ids=range(8)
)
def test_a_request_that_does_not_come_to_its_end_is_given_up(service: Server, sent: bytes) -> None:
    with closing(connect(service)) as connection:
        connection.sendall(sent)
        assert is_closed(connection)
    assert Client(service.url).get("/healthz").status == 200


@pytest.mark.parametrize("first", [HEAD + b"X: ", POST, b"GET /"], ids=["head", "body", "path"])
def test_a_request_that_drips_is_given_up(service: Server, first: bytes) -> None:
    with closing(connect(service)) as connection:
        connection.sendall(first)
        with pytest.raises(OSError):
            for _ in range(200):
                connection.sendall(b"a")
                time.sleep(0.1)
    assert closed(service)["late"] >= 1


@pytest.mark.parametrize("taken", [0, 1])
def test_an_answer_that_is_not_taken_is_given_up(service: Server, taken: int) -> None:
    """Not at all, or byte by byte: something always waits."""
    with closing(Listener(int(service.url.rpartition(":")[2]), {"Authorization": f"Bearer {TOKEN}"}, 4096)) as slow:
        for _ in range(300):
            service.state.note(config_error="x" * 20_000)
            if closed(service)["behind"]:
                break
            time.sleep(0.05)
            with suppress(OSError):
                slow._socket.recv(taken) if taken else None
    assert closed(service)["behind"] == 1


def test_one_request_at_a_time_is_answered(service: Server) -> None:
    """Of a hundred sent at once the first, and the connection ends: else it would be held for a hundred answers."""
    with closing(connect(service)) as connection:
        connection.sendall((HEAD + b"\r\n") * 100)
        answered = b""
        while part := connection.recv(65536):
            answered += part
    assert 1 <= answered.count(b"HTTP/1.1 200") <= 2
    assert Client(service.url).get("/healthz").status == 200


def test_who_listens_is_not_given_up(service: Server) -> None:
    client = Client(service.url, TOKEN)
    with closing(client.listen()) as listener:
        events = listener.events("streams")
        began = time.monotonic()
        while time.monotonic() - began < 4 * connections.REQUEST_S:
            next(events)
    assert closed(service) == {"behind": 0, "crowded": 0, "late": 0}


def test_a_connection_is_kept_for_another_request(service: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(service.url.rpartition(":")[2]), timeout=20)
    with closing(connection):
        connection.connect()
        kept = connection.sock
        for _ in range(4):
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"healthy":true}'
            time.sleep(0.6)
        assert connection.sock is kept


def test_however_many_connect_and_wait_a_request_is_answered(service: Server, said: list[str]) -> None:
    idle = []
    try:
        for _ in range(60):
            idle.append(connect(service))
            assert Client(service.url).get("/healthz").status == 200
    finally:
        for connection in idle:
            connection.close()
    assert closed(service)["crowded"] >= 50
    assert len(said) == 1, "it was said more than once a minute"


def test_one_address_leaves_room_for_others(service: Server) -> None:
    listening = [Client(service.url, TOKEN).listen() for _ in range(4)]
    idle = [connect(service) for _ in range(20)]
    try:
        others = [connect(service, f"127.0.0.{number}") for number in range(2, 6)]
        for connection in others:
            connection.sendall(HEAD + b"\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.close()
        assert sum(not is_closed(connection, 0.05) for connection in idle) <= 2
        for listener in listening:
            next(listener.events("streams"))
    finally:
        for one in (*listening, *idle):
            one.close()


def test_an_address_that_listens_as_often_as_it_may_is_told_so(service: Server) -> None:
    client = Client(service.url, TOKEN)
    listening = [client.listen() for _ in range(4)]
    try:
        for _ in range(5):
            with closing(client.listen()) as refused:
                assert refused.status == 503
        assert client.get("/healthz").status == 200
    finally:
        for listener in listening:
            listener.close()


def test_limits_follow_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, most in ((64, 32), (256, 128), (1024, 512), (4096, 1536), (1 << 20, 1536)):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda kind, files=files: (files, files))
        found, last_descriptor = connections.connection_limits()
        assert found == most <= last_descriptor < files


def test_guessing_is_slow_however_many_connections_are_used(service: Server) -> None:
    client = Client(service.url)
    statuses = [client.post("/login", urlencode({"token": str(number)})).status for number in range(7)]
    assert statuses == [401] * 5 + [429] * 2
