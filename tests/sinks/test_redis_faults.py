"""The Redis sink where server, line or address are at fault: bounded, counted, named, and nobody else is harmed."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streamgate.errors import DeliveryError, SinkError
from streamgate.sinks import SinkGroup, SourceWriter
from streamgate.sinks.disk import DiskSink
from streamgate.sinks.redis import RedisSink
from support.faulty_line import line_to
from support.redis_server import RedisServer, TlsServer, entries

if TYPE_CHECKING:
    from support.sink_values import Make

Start = Callable[..., RedisServer]
SHORT = 0.4
"""Seconds that a fault is tried again in most tests here."""


def whole_chain(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error.__context__) + repr(error.__cause__)


def large(make: Make, writer: SourceWriter, name: str, count: int) -> None:
    """`count` faces of some 50 kB each."""
    for track_id in range(count):
        writer.track(make.ended(name, track_id, size=256))


def tracks_of(server: RedisServer) -> list[int]:
    return [json.loads(entry["json"])["track_id"] for entry in server.entries()]


@contextmanager
def refused(words: str) -> Iterator[pytest.ExceptionInfo[SinkError]]:
    """The sink cannot be entered: known before any work, exit 5, one line."""
    with pytest.raises(SinkError, match=words) as caught:
        yield caught
    assert caught.value.exit_code == 5 and "\n" not in str(caught.value)
    assert not isinstance(caught.value, DeliveryError)


# Known before any work.


def test_a_server_that_is_not_there(make: Make, start_redis: Start) -> None:
    server = start_redis()
    server.stop()
    said: list[str] = []
    url = server.url("ann:s3cret-pw@")
    with (
        refused(r"cannot use redis://\*\*\*@127.*no connection; check") as caught,
        RedisSink(url, make.run(), retry_seconds=SHORT, warn=said.append),
    ):
        pass
    assert "s3cret-pw" not in whole_chain(caught.value) + "".join(said)
    assert len(said) == 1 and "retrying for up to 0.4 s" in said[0]


def test_a_server_that_comes_up_late_is_waited_for(make: Make, start_redis: Start) -> None:
    server = start_redis()
    server.stop()
    late = threading.Timer(0.5, server.start_again)
    late.start()
    with RedisSink(server.url(), make.run()) as sink:
        late.join()
        make.send(sink, "a")
    assert len(server.entries()) == 4


@pytest.mark.parametrize("credentials", ["", ":wr0ng-pass@", "ann:wr0ng%40pass@"])
def test_a_wrong_password_is_named_without_being_shown_and_not_tried_again(
    make: Make, start_redis: Start, credentials: str
) -> None:
    server = start_redis("--requirepass", "r1ght-pass")
    said: list[str] = []
    with (
        refused("rejects the user name or password") as caught,
        RedisSink(server.url(credentials), make.run(), warn=said.append),
    ):
        pass
    assert not said
    assert not any(secret in whole_chain(caught.value) for secret in ("wr0ng", "r1ght-pass"))
    with RedisSink(server.url(":r1ght-pass@"), make.run()) as sink:
        make.send(sink, "a")
    assert len(server.entries(":r1ght-pass@")) == 4


def test_a_key_of_another_type(make: Make, start_redis: Start) -> None:
    server = start_redis()
    with server.client() as client:
        client.set("streamgate:faces", "not a stream")
    with refused("not a stream; remove or rename it"), RedisSink(server.url(), make.run()):
        pass


def test_a_read_only_replica(make: Make, start_redis: Start) -> None:
    server = start_redis("--replicaof", "127.0.0.1 1")
    with (
        refused("read-only replica; use the address"),
        RedisSink(server.url(), make.run(), retry_seconds=SHORT),
    ):
        pass


def test_a_server_that_takes_no_more_clients(make: Make, start_redis: Start) -> None:
    server = start_redis()
    with server.client() as holder:
        holder.config_set("maxclients", "1")
        with (
            refused("accepts no more clients; raise its maxclients"),
            RedisSink(server.url(), make.run(), retry_seconds=SHORT),
        ):
            pass


def test_an_interrupt_while_waiting_for_a_server_ends_it(make: Make, start_redis: Start) -> None:
    server = start_redis()
    server.stop()
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(KeyboardInterrupt), RedisSink(server.url(), make.run(), retry_seconds=600, stopping=stop):
        pass


# TLS.


def test_a_server_with_tls(make: Make, start_tls_redis: Callable[..., TlsServer]) -> None:
    server = start_tls_redis("--requirepass", "r1ght-pass")
    with RedisSink(server.url(":r1ght-pass@", server.trusted), make.run()) as sink:
        make.send(sink, "a")
    assert len(server.plain.entries(":r1ght-pass@")) == 4


def test_a_certificate_that_nobody_trusts_is_named_at_once(
    make: Make, start_tls_redis: Callable[..., TlsServer]
) -> None:
    server = start_tls_redis()
    said: list[str] = []
    with (
        refused(r"certificate is not trusted.*ssl_ca_certs=FILE") as caught,
        RedisSink(server.url("ann:s3cret-pw@"), make.run(), warn=said.append),
    ):
        pass
    assert "s3cret-pw" not in whole_chain(caught.value) and not said


def test_a_certificate_for_another_host(make: Make, start_tls_redis: Callable[..., TlsServer]) -> None:
    server = start_tls_redis(host="redis.example")
    with refused("not for this host"), RedisSink(server.url("", server.trusted), make.run()):
        pass


def test_tls_to_a_plain_port_and_the_other_way_round(make: Make, start_tls_redis: Callable[..., TlsServer]) -> None:
    server = start_tls_redis()
    quickly = "socket_timeout=0.3&socket_connect_timeout=0.3"
    to_plain = f"rediss://u:s3cret-pw@127.0.0.1:{server.plain.port}/0{server.trusted}&{quickly}"
    to_tls = f"redis://u:s3cret-pw@127.0.0.1:{server.port}/0?{quickly}"
    for url, words in ((to_plain, "does not speak TLS on this port, use redis://"), (to_tls, "no connection")):
        with refused(words) as caught, RedisSink(url, make.run(), retry_seconds=SHORT):
            pass
        assert "s3cret-pw" not in whole_chain(caught.value)


# In the middle of a run.


def test_a_server_gone_midway_costs_its_events_and_is_counted(make: Make, start_redis: Start, tmp_path: Path) -> None:
    server = start_redis()
    said: list[str] = []
    redis = RedisSink(
        server.url("ann:s3cret-pw@"), make.run(), retry_seconds=SHORT, results=tmp_path / "my out", warn=said.append
    )
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", ">s3cret-pw", "~*", "+@all")
    with SinkGroup([DiskSink(tmp_path / "my out", make.run()), redis]) as sink:
        make.send(sink, "a")
        server.stop()
        for name in "bcdef":
            make.send(sink, name)
        during = list(said)
        with pytest.raises(DeliveryError) as caught:
            sink.finish([make.result(name) for name in "abcdef"], {})
    text = str(caught.value)
    assert "4 of 24 finals delivered, 20 missing, from 5 of 6 sources" in text
    assert "in/b.mp4 (0 of 4), in/c.mp4 (0 of 4), in/d.mp4 (0 of 4) and 2 more" in text and "no connection" in text
    assert f"streamgate replay '{tmp_path}/my out' --sink" in text
    # Nothing on disk is lost, and the run's own files are whole.
    assert len((tmp_path / "my out" / "faces.jsonl").read_text().splitlines()) == 18
    assert json.loads((tmp_path / "my out" / "summary.json").read_text())["complete"] is True
    # One line when waiting begins and one when it is given up, not one for each source; one more at the end.
    assert len(during) == 2 and "the run continues" in during[1], during
    assert len(said) == 3 and "retrying" in said[2], said
    assert "s3cret-pw" not in whole_chain(caught.value) + "".join(said)


def test_a_server_that_comes_back_gets_what_follows(make: Make, start_redis: Start) -> None:
    server = start_redis()
    said: list[str] = []
    with RedisSink(server.url(), make.run(), retry_seconds=0.1, warn=said.append) as sink:
        server.stop()
        make.send(sink, "a")
        server.start_again()
        time.sleep(0.15)
        make.send(sink, "b")
        make.send(sink, "c")
        with pytest.raises(DeliveryError, match=r"8 of 12 finals delivered, 4 missing, from 1 of 3 .*a.mp4 \(0 of 4"):
            sink.finish([], {})
    assert len(server.entries()) == 8
    assert any("delivery of finals works again" in line for line in said)


def recovering(server: RedisServer, make: Make, out: Path, **options: object) -> RedisSink:
    """As `run` makes it."""
    return RedisSink(server.url(), make.run(), retry_seconds=SHORT, results=out, **options)


def test_what_is_missing_is_sent_at_the_end(make: Make, start_redis: Start, tmp_path: Path) -> None:
    server = start_redis()
    disk = DiskSink(tmp_path, make.run())
    with SinkGroup([disk, recovering(server, make, tmp_path)]) as sink:
        make.send(sink, "a")
        with server.client() as client:
            client.config_set("maxmemory", "1")
            make.send(sink, "b")
            make.send(sink, "c")
            client.config_set("maxmemory", "0")
        sink.finish([make.result(name) for name in "abc"], {})
    assert [entry["id"].decode()[0] for entry in server.entries()] == list("aaaabbbbcccc")


def test_what_is_still_missing_at_the_end_is_counted(make: Make, start_redis: Start, tmp_path: Path) -> None:
    server = start_redis()
    with SinkGroup([DiskSink(tmp_path, make.run()), recovering(server, make, tmp_path)]) as sink:
        make.send(sink, "a")
        with server.client() as client:
            client.config_set("maxmemory", "1")
        make.send(sink, "b")
        make.send(sink, "c")
        (tmp_path / "b-0a1b2c3d" / "track_0001" / "1.png").unlink()
        with pytest.raises(DeliveryError, match=r"4 of 12 finals delivered, 8 missing, from 2 of 3 .*memory"):
            sink.finish([make.result(name) for name in "abc"], {})


def test_damaged_results_cannot_be_sent_at_the_end(make: Make, start_redis: Start, tmp_path: Path) -> None:
    server = start_redis()
    with SinkGroup([DiskSink(tmp_path, make.run()), recovering(server, make, tmp_path)]) as sink:
        with server.client() as client:
            client.config_set("maxmemory", "1")
            make.send(sink, "a")
            client.config_set("maxmemory", "0")
        (tmp_path / "a-0a1b2c3d" / "track_0001" / "1.png").unlink()
        with pytest.raises(DeliveryError, match=r"3 of 4 finals delivered, 1 missing, .*track_0001/1.png is missing"):
            sink.finish([make.result("a")], {})
    assert len(server.entries()) == 3


def test_a_process_that_goes_on_sends_what_the_one_before_it_did_not(
    make: Make, start_redis: Start, tmp_path: Path
) -> None:
    server = start_redis()
    with DiskSink(tmp_path, make.run()) as disk:
        redis = recovering(server, make, tmp_path).__enter__()
        group = SinkGroup([disk, redis])
        make.send(group, "a")
        # Killed when b was committed and not sent.
        make.send(disk, "b")
    with open(tmp_path / ".streamgate" / "delivered.jsonl", "ab") as delivered:
        delivered.write(b'{"sink":"redis://')
    with recovering(server, make, tmp_path, resumed=True) as again:
        make.send(again, "c")
        again.finish([], {})
    assert [entry["id"].decode()[0] for entry in server.entries()] == list("aaaaccccbbbb")
    # Another destination, or a run that begins anew, has had nothing.
    with recovering(server, make, tmp_path, resumed=True) as third:
        third.finish([], {})
    assert len(server.entries()) == 12
    with RedisSink(server.url(database=1), make.run(), results=tmp_path, resumed=True) as other:
        other.finish([], {})
    assert len(entries(server.url(database=1))) == 8


def test_a_restart_is_bridged(make: Make, start_redis: Start) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    with RedisSink(server.url(), make.run()) as sink:
        make.send(sink, "a")
        server.stop()
        later = threading.Timer(0.6, server.start_again)
        later.start()
        make.send(sink, "b")
        later.join()
        sink.finish([], {})
    assert len(server.entries()) == 8


def test_connections_that_the_server_drops_are_made_anew(make: Make, start_redis: Start) -> None:
    server = start_redis()
    with RedisSink(server.url(), make.run()) as sink:
        make.send(sink, "a")
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        make.send(sink, "b")
    assert len(server.entries()) == 8


@pytest.mark.parametrize("cut", [1, 100, 60_000, 1_500_000])
def test_a_reset_in_the_middle_of_a_pipeline(make: Make, start_redis: Start, cut: int) -> None:
    server = start_redis()
    with line_to(server.port) as line, RedisSink(line.url, make.run()) as sink:
        # The connection in use is dropped, the next one is cut, the one after that is sound.
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        line.cut_after[:] = [cut]
        writer = sink.open_source(make.source("a"))
        large(make, writer, "a", 40)
        writer.commit(make.result("a"))
        sink.finish([], {})
        assert line.connections >= 3
    # What was taken once is not there in half: a pipeline is one transaction.
    assert tracks_of(server) == list(range(40))


def test_a_lost_answer_brings_an_event_twice_and_none_is_missing(make: Make, start_redis: Start) -> None:
    server = start_redis()
    with line_to(server.port) as line:
        url = f"{line.url}?socket_timeout=0.5"
        with RedisSink(url, make.run()) as sink:
            line.silent = True
            heals = threading.Timer(0.3, lambda: setattr(line, "silent", False))
            heals.start()
            make.send(sink, "a")
            sink.finish([], {})
    ids = [entry["id"] for entry in server.entries()]
    assert len(set(ids)) == 4 and list(dict.fromkeys(ids)) == sorted(set(ids))


def test_a_slow_line_gets_smaller_chunks_until_they_pass(make: Make, start_redis: Start) -> None:
    server = start_redis()
    with line_to(server.port) as line, RedisSink(f"{line.url}?socket_timeout=1", make.run()) as sink:
        # 1.6 MB at 500 kB/s: never within a second as a whole, well so in parts.
        line.bytes_per_second = 500_000
        writer = sink.open_source(make.source("a"))
        large(make, writer, "a", 30)
        writer.commit(make.result("a"))
        sink.finish([], {})
    assert list(dict.fromkeys(tracks_of(server))) == list(range(30))


def test_a_server_that_hangs_is_given_up(make: Make, start_redis: Start) -> None:
    server = start_redis()
    with RedisSink(f"{server.url()}?socket_timeout=0.3", make.run(), retry_seconds=SHORT) as sink:
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            make.send(sink, "a")
            with pytest.raises(DeliveryError, match=r"0 of 4 finals.*does not respond in time"):
                sink.finish([], {})
        finally:
            os.kill(server.process.pid, signal.SIGCONT)


def test_a_server_that_hangs_for_a_while_gets_everything(make: Make, start_redis: Start) -> None:
    server = start_redis()
    with RedisSink(f"{server.url()}?socket_timeout=0.3", make.run()) as sink:
        os.kill(server.process.pid, signal.SIGSTOP)
        wakes = threading.Timer(1.0, os.kill, [server.process.pid, signal.SIGCONT])
        wakes.start()
        make.send(sink, "a")
        wakes.join()
        sink.finish([], {})
    # What was sent before the server stopped may come twice.
    assert len({entry["id"] for entry in server.entries()}) == 4


def test_an_address_that_never_answers_is_given_up(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"redis://127.0.0.1:{deaf.getsockname()[1]}/0?socket_timeout=0.3"
        with refused("does not respond in time"), RedisSink(url, make.run(), retry_seconds=SHORT):
            pass


def test_out_of_memory_delivers_what_fits_in_order(make: Make, start_redis: Start) -> None:
    server = start_redis("--maxmemory", "5mb", "--maxmemory-policy", "noeviction")
    with (
        pytest.raises(DeliveryError, match="out of memory; raise its maxmemory or trim") as caught,
        RedisSink(server.url(), make.run(), retry_seconds=3) as sink,
    ):
        writer = sink.open_source(make.source("a"))
        large(make, writer, "a", 100)
        writer.commit(make.result("a"))
    delivered = tracks_of(server)
    assert 0 < len(delivered) < 100 and delivered == list(range(len(delivered)))
    assert f"{len(delivered)} of 100 finals delivered, {100 - len(delivered)} missing" in str(caught.value)


faults = pytest.mark.parametrize(
    ("broken", "mended"),
    [
        (lambda client: client.config_set("maxmemory", "1"), lambda client: client.config_set("maxmemory", "0")),
        (lambda client: client.replicaof("127.0.0.1", "1"), lambda client: client.replicaof("NO", "ONE")),
        (lambda client: client.config_set("min-replicas-to-write", "1"),
         lambda client: client.config_set("min-replicas-to-write", "0")),
    ],
    ids=["memory", "read-only", "replicas"],
)  # fmt: skip


@faults
def test_a_fault_that_lasts_is_counted_and_replayed(
    make: Make, start_redis: Start, tmp_path: Path, broken: Callable, mended: Callable
) -> None:
    server = start_redis()
    with server.client() as client:
        with SinkGroup([DiskSink(tmp_path, make.run()), recovering(server, make, tmp_path)]) as sink:
            make.send(sink, "a")
            broken(client)
            make.send(sink, "b")
            with pytest.raises(DeliveryError, match=r"4 of 8 finals delivered, 4 missing, from 1 of 2 sources"):
                sink.finish([make.result(name) for name in "ab"], {})
        mended(client)
    with recovering(server, make, tmp_path, resumed=True) as again:
        again.finish([], {})
    assert [entry["id"].decode()[0] for entry in server.entries()] == list("aaaabbbb")


@faults
def test_a_fault_that_passes_costs_nothing(
    make: Make, start_redis: Start, broken: Callable, mended: Callable
) -> None:
    server = start_redis()
    said: list[str] = []
    with server.client() as client, RedisSink(server.url(), make.run(), warn=said.append) as sink:
        make.send(sink, "a")
        broken(client)
        later = threading.Timer(0.5, mended, [client])
        later.start()
        make.send(sink, "b")
        later.join()
        sink.finish([], {})
    assert [entry["id"].decode()[0] for entry in server.entries()] == list("aaaabbbb")
    assert len(said) == 1 and "retrying" in said[0]


def test_a_password_changed_midway_is_not_waited_for(make: Make, start_redis: Start) -> None:
    server = start_redis("--requirepass", "0ld-pass")
    said: list[str] = []
    with RedisSink(server.url(":0ld-pass@"), make.run(), retry_seconds=600, warn=said.append) as sink:
        make.send(sink, "a")
        with server.client(":0ld-pass@") as client:
            client.config_set("requirepass", "n3w-pass")
            client.client_kill_filter(_type="normal", skipme=True)
        make.send(sink, "b")
        with pytest.raises(DeliveryError, match=r"4 of 8 finals.*rejects the user name or password") as caught:
            sink.finish([], {})
    assert not any(secret in whole_chain(caught.value) + "".join(said) for secret in ("0ld-pass", "n3w-pass"))


def test_a_user_who_may_only_add_is_enough(make: Make, start_redis: Start) -> None:
    adder = ("--user", "adder", "on", ">pw-of-adder", "~streamgate:*", "+xadd")
    server = start_redis(*adder, "--user", "nob@dy77", "on", ">pw-of-none", "+ping")
    with RedisSink(server.url("adder:pw-of-adder@"), make.run()) as sink:
        make.send(sink, "a")
    # Without a transaction nothing comes twice either.
    assert len(server.entries()) == 4
    with (
        pytest.raises(DeliveryError, match=r"0 of 4 finals.*allow XADD") as caught,
        RedisSink(server.url("nob%40dy77:pw-of-none@"), make.run()) as sink,
    ):
        make.send(sink, "a")
    assert not any(secret in str(caught.value) for secret in ("pw-of-none", "dy77"))


def test_no_room_for_waiting_events_costs_only_them(
    make: Make, start_redis: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamgate.store.sorter import KeyedSorter

    def full(self: KeyedSorter, key: tuple[int, int], data: bytes) -> None:
        raise OSError(28, "No space left on device")

    server = start_redis()
    with SinkGroup([DiskSink(tmp_path, make.run()), RedisSink(server.url(), make.run())]) as sink:
        writer = sink.open_source(make.source("a"))
        with monkeypatch.context() as patched:
            writer.track(make.ended("a", 1, kept=2))
            # The disk sink's shelf has room; only what waits for Redis has none.
            patched.setattr(KeyedSorter, "put", full)
            writer._writers[1].track(make.ended("a", 2))
        writer._writers[0].track(make.ended("a", 2))
        writer.commit(make.result("a"))
        make.send(sink, "b")
        with pytest.raises(DeliveryError, match=r"4 of 7 finals delivered, 3 missing.*No space left"):
            sink.finish([make.result("a"), make.result("b")], {})
    assert len((tmp_path / "faces.jsonl").read_text().splitlines()) == 6


def test_whoever_never_finishes_is_told_too(make: Make, start_redis: Start) -> None:
    server = start_redis()
    with pytest.raises(DeliveryError), RedisSink(server.url(), make.run(), retry_seconds=0) as sink:
        server.stop()
        make.send(sink, "a")
