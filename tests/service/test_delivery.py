"""Delivery through a real spool to a real redis-server that dies, fills up, refuses and comes back."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from streamgate.service.delivery import Delivery, LiveEvent
from streamgate.service.frame_queue import Timestamp
from streamgate.service.spool import Spool
from streamgate.service.state import ServiceState
from streamgate.sinks.redis_stream import RedisStream
from support.faulty_line import line_to
from support.metric import metric
from support.redis_server import RedisServer

STREAM = "streamgate:faces"


def event_of(number: int, kind: str = "final") -> LiveEvent:
    record = {"id": f"door/e1/{number}/{kind}/1/0"}
    now = Timestamp.now()
    return LiveEvent(kind, record, b"\xff\xd8" + bytes(4000), None, now, now if kind == "final" else None)


def wanted(count: int, start: int = 0) -> list[str]:
    return [f"door/e1/{number}/final/1/0" for number in range(start, count)]


@contextmanager
def delivering(
    url: str, folder: Path, *, limit: int = 64 << 20, log: list[str] | None = None
) -> Iterator[tuple[Delivery, ServiceState]]:
    state = ServiceState()
    told = log if log is not None else []
    redis_stream = RedisStream(url, option="--redis")
    with Delivery(state, redis=redis_stream, spool=Spool(folder, limit), folder=None, log=told.append) as delivery:
        yield delivery, state
        delivery.stop(5.0)


def arrived(server: RedisServer, credentials: str = "") -> list[str]:
    with redis.Redis.from_url(server.url(credentials)) as client:
        return [fields[b"id"].decode() for _, fields in client.xrange(STREAM)]


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def figure(state: ServiceState, name: str) -> object:
    return state.overview().destinations["redis"][name]


def first_of_each(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))


def test_events_arrive_once_and_in_order_and_are_measured(start_redis: Callable[..., RedisServer], tmp_path: Path):
    server = start_redis()
    with delivering(server.url(), tmp_path / "spool") as (delivery, state):
        for number in range(300):
            delivery.put(event_of(number))
    assert arrived(server) == wanted(300)
    assert metric(state, "streamgate_events_total", kind="final") == 300
    assert metric(state, "streamgate_final_latency_seconds_count") == 300


def test_a_redis_that_dies_and_comes_back_gets_everything(start_redis: Callable[..., RedisServer], tmp_path: Path):
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    log: list[str] = []
    with delivering(server.url(), tmp_path / "spool", log=log) as (delivery, state):
        for number in range(50):
            delivery.put(event_of(number))
        server.stop()
        for number in range(50, 100):
            delivery.put(event_of(number))
        until(lambda: figure(state, "ok") is False)
        assert "connection" in str(figure(state, "error"))
        server.start_again()
        until(lambda: figure(state, "ok") is True)
        until(lambda: state.overview().destinations["redis"] and len(delivery._spool) == 0)
    ids = arrived(server)
    # An answer lost with the server may bring a chunk twice; a consumer tells by the id.
    assert first_of_each(ids) == wanted(100)
    assert any("are delivered again" in line for line in log)


@pytest.mark.parametrize("fault", ["out of memory", "read-only"])
def test_a_redis_that_refuses_for_a_while_gets_everything_in_order(
    start_redis: Callable[..., RedisServer], tmp_path: Path, fault: str
):
    server = start_redis()
    client = redis.Redis.from_url(server.url())
    broken = {
        "out of memory": lambda: client.config_set("maxmemory", "1"),
        "read-only": lambda: client.replicaof("127.0.0.1", "1"),
    }
    mended = {
        "out of memory": lambda: client.config_set("maxmemory", "0"),
        "read-only": lambda: client.replicaof("NO", "ONE"),
    }
    with delivering(server.url(), tmp_path / "spool") as (delivery, state):
        delivery.put(event_of(0))
        until(lambda: metric(state, "streamgate_events_total", kind="final") == 1)
        broken[fault]()
        for number in range(1, 80):
            delivery.put(event_of(number))
        until(lambda: figure(state, "ok") is False)
        assert fault.split()[-1] in str(figure(state, "error"))
        mended[fault]()
        until(lambda: metric(state, "streamgate_events_total", kind="final") == 80)
    assert arrived(server) == wanted(80)
    client.close()


def test_what_waits_when_the_service_stops_is_sent_by_the_next_one(
    start_redis: Callable[..., RedisServer], tmp_path: Path
):
    server = start_redis()
    server.stop()
    with delivering(server.url(), tmp_path / "spool") as (delivery, _):
        for number in range(40):
            delivery.put(event_of(number))
    server.start_again()
    with delivering(server.url(), tmp_path / "spool") as (delivery, _):
        delivery.put(event_of(40))
        until(lambda: len(arrived(server)) >= 41)
    assert arrived(server) == wanted(41)


def test_beyond_the_bound_the_oldest_are_dropped_and_counted(start_redis: Callable[..., RedisServer], tmp_path: Path):
    server = start_redis()
    server.stop()
    with delivering(server.url(), tmp_path / "spool", limit=100_000) as (delivery, state):
        for number in range(60):
            delivery.put(event_of(number))
        until(lambda: metric(state, "streamgate_spool_dropped_total") >= 30)
        until(lambda: delivery._inbox.empty())
        server.start_again()
        until(lambda: bool(arrived(server)))
        until(lambda: len(delivery._spool) == 0)
        dropped = delivery._spool.dropped
    ids = arrived(server)
    assert ids == wanted(60, dropped) and dropped >= 30


def test_a_user_who_may_only_add_is_enough(start_redis: Callable[..., RedisServer], tmp_path: Path):
    server = start_redis("--user", "writer", "on", ">pw12345", f"~{STREAM}", "+xadd")
    log: list[str] = []
    with delivering(server.url("writer:pw12345@"), tmp_path / "spool", log=log) as (delivery, state):
        for number in range(20):
            delivery.put(event_of(number))
        until(lambda: metric(state, "streamgate_events_total", kind="final") == 20)
    # The first chunk may come twice: a refused MULTI does not keep what follows it from being done.
    assert first_of_each(arrived(server)) == wanted(20)
    assert "pw12345" not in " ".join(log)


def test_a_wrong_password_is_said_without_it_and_cured_by_the_server(
    start_redis: Callable[..., RedisServer], tmp_path: Path
):
    server = start_redis("--user", "writer", "on", ">pw99999", "~*", "+@all")
    log: list[str] = []
    with delivering(server.url("writer:pw12345@"), tmp_path / "spool", log=log) as (delivery, state):
        delivery.put(event_of(0))
        until(lambda: figure(state, "ok") is False)
        assert "user name or password" in str(figure(state, "error"))
        with redis.Redis.from_url(server.url("writer:pw99999@")) as client:
            client.acl_setuser("writer", enabled=True, passwords=["+pw12345"], keys=["*"], categories=["+@all"])
        until(lambda: metric(state, "streamgate_events_total", kind="final") == 1)
    said = " ".join(log) + str(state.overview())
    assert "pw12345" not in said and "writer" not in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    folder = tmp_path / "small"
    folder.mkdir()
    if mount is None or umount is None:
        pytest.skip("mount is not installed")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("a tmpfs cannot be mounted here (needs root)")
    yield folder
    subprocess.run([umount, "-l", str(folder)], check=False)


def test_a_full_disk_under_the_spool_loses_nothing_while_the_service_lives(
    start_redis: Callable[..., RedisServer], small_disk: Path
):
    server = start_redis()
    server.stop()
    log: list[str] = []
    with delivering(server.url(), small_disk / "spool", log=log) as (delivery, state):
        for number in range(250):  # about a megabyte
            delivery.put(event_of(number))
        until(lambda: metric(state, "streamgate_faults_total", what="spool") > 0)
        server.start_again()
        until(lambda: len(delivery._spool) == 0 and delivery._inbox.empty())
        delivery.put(event_of(250))
        until(lambda: metric(state, "streamgate_events_total", kind="final") == 251)
    assert arrived(server) == wanted(251)
    assert any("no space left" in line for line in log)


def test_a_slow_line_gets_what_it_can_carry(start_redis: Callable[..., RedisServer], tmp_path: Path):
    server = start_redis()
    with line_to(server.port) as line:
        # A chunk of 64 events is 260 kB: too much for a line of 100 kB/s in the one second that an answer may take.
        line.bytes_per_second = 100_000
        with delivering(f"{line.url}?socket_timeout=1", tmp_path / "spool") as (delivery, state):
            for number in range(100):
                delivery.put(event_of(number))
            until(lambda: metric(state, "streamgate_events_total", kind="final") == 100)
    assert first_of_each(arrived(server)) == wanted(100)


def test_putting_never_waits_for_a_redis_that_hangs(tmp_path: Path):
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"
        state = ServiceState()
        spool = Spool(tmp_path / "spool", 64 << 20)
        with Delivery(state, redis=RedisStream(url), spool=spool, folder=None, log=lambda line: None) as delivery:
            done = threading.Event()

            def work() -> None:
                for number in range(400):
                    delivery.put(event_of(number))
                done.set()

            threading.Thread(target=work, daemon=True).start()
            # The hanging server answers nothing for as long as this lasts.
            assert done.wait(60.0)
            delivery.stop(0.2)
    with Spool(tmp_path / "spool", 64 << 20) as spool:
        assert len(spool) == 400
