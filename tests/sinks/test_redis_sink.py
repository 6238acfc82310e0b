"""The Redis sink against a real redis-server."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import redis as client_library

from streamgate.errors import SinkError, UsageError
from streamgate.sinks import open_sink
from streamgate.sinks.redis import RedisSink

if TYPE_CHECKING:
    from redis_server import RedisServer
    from sink_values import Make

    Start = Callable[..., RedisServer]

STREAM = "streamgate:faces"


def entries(url: str) -> list[dict[str, bytes]]:
    with client_library.Redis.from_url(url) as client:
        return [{key.decode(): value for key, value in fields.items()} for _, fields in client.xrange(STREAM)]


def send(sink: RedisSink, make: Make, name: str) -> None:
    writer = sink.open_source(make.source(name))
    make.fill(writer, name)
    writer.commit(make.result(name))


def whole_chain(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error.__context__) + repr(error.__cause__)


def test_events_of_a_committed_source(make: Make, start_redis: Start) -> None:
    url = start_redis().url(database=3)
    with open_sink(url, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        make.fill(writer, "a")
        assert entries(url) == []  # nothing before the commit
        writer.commit(make.result("a"))
        sink.finish([make.result("a")], {})
    found = entries(url)
    assert [entry["id"].decode() for entry in found] == [
        "a-0a1b2c3d/0/1/final/1/0", "a-0a1b2c3d/0/2/final/1/0", "a-0a1b2c3d/0/2/final/2/0",
        "a-0a1b2c3d/0/3/final/0/0",
    ]  # fmt: skip
    assert {entry["kind"] for entry in found} == {b"final"}
    for entry in found[:3]:
        assert list(entry) == ["id", "kind", "json", "jpeg"]
        picture = cv2.imdecode(np.frombuffer(entry["jpeg"], np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (64, 64, 3)
        record = json.loads(entry["json"])
        assert record["id"] == entry["id"].decode()
        assert record["person_id"] is None and record["image"] is None and "embedding" not in record
    nothing = json.loads(found[3]["json"])
    assert list(found[3]) == ["id", "kind", "json"]
    assert nothing["rank"] == 0 and nothing["gate"] == {"passed": False, "reasons": ["yaw"]}
    assert nothing["calibration_id"] == "cal-1" and nothing["rejected"] == {"blurred": 2, "yaw": 4}


def test_the_jpeg_shows_the_crop_in_its_colours(make: Make, start_redis: Start) -> None:
    url = start_redis().url()
    ended = make.ended("a", 1)
    ended.shots[0].image[:] = (200, 40, 10)
    with RedisSink(url, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        writer.track(ended)
        writer.commit(make.result("a"))
    picture = cv2.imdecode(np.frombuffer(entries(url)[0]["jpeg"], np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(picture[..., ::-1].astype(int) - (200, 40, 10)).max() <= 4


def test_a_discarded_source_sends_nothing(make: Make, start_redis: Start) -> None:
    url = start_redis().url()
    with RedisSink(url, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        make.fill(writer, "a")
        writer.discard()
        writer.discard()
    assert entries(url) == []


def test_the_stream_is_trimmed_to_about_maxlen(make: Make, start_redis: Start) -> None:
    url = start_redis("--stream-node-max-entries", "10").url()
    with RedisSink(url, make.run(), maxlen=20) as sink:
        writer = sink.open_source(make.source("a"))
        for track_id in range(200):
            writer.track(make.ended("a", track_id, kept=0))
        writer.commit(make.result("a"))
    found = entries(url)
    assert 20 <= len(found) <= 40
    assert found[-1]["id"] == b"a-0a1b2c3d/0/199/final/0/0"


def test_many_large_events_keep_their_order(make: Make, start_redis: Start) -> None:
    url = start_redis().url()
    with RedisSink(url, make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        for track_id in reversed(range(150)):
            writer.track(make.ended("a", track_id, size=256))
        writer.commit(make.result("a"))
    found = entries(url)
    assert sum(len(entry["jpeg"]) for entry in found) > 4 << 20  # several pipelines, past the shelf's memory
    assert [json.loads(entry["json"])["track_id"] for entry in found] == list(range(150))


def test_a_server_that_is_not_there_is_known_before_work(make: Make, start_redis: Start) -> None:
    server = start_redis()
    server.stop()
    url = server.url("ann:s3cret-pw@")
    with (
        pytest.raises(SinkError, match=r"cannot use redis://\*\*\*@127.*no connection; check") as caught,
        RedisSink(url, make.run()),
    ):
        pass
    assert caught.value.exit_code == 5
    assert "s3cret-pw" not in whole_chain(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("credentials", ["", ":wr0ng-pass@", "ann:wr0ng%40pass@"])
def test_a_wrong_password_is_named_without_being_shown(
    make: Make, start_redis: Start, credentials: str
) -> None:
    server = start_redis("--requirepass", "r1ght-pass")
    with (
        pytest.raises(SinkError, match="refuses user or password") as caught,
        RedisSink(server.url(credentials), make.run()),
    ):
        pass
    assert not any(secret in whole_chain(caught.value) for secret in ("wr0ng", "r1ght-pass"))
    with RedisSink(server.url(":r1ght-pass@"), make.run()) as sink:
        send(sink, make, "a")


def test_a_user_who_may_only_add_is_enough(make: Make, start_redis: Start) -> None:
    adder = ("--user", "adder", "on", ">pw-of-adder", "~streamgate:*", "+xadd")
    server = start_redis(*adder, "--user", "nob@dy77", "on", ">pw-of-none", "+ping")
    with RedisSink(server.url("adder:pw-of-adder@"), make.run()) as sink:
        send(sink, make, "a")
    assert len(entries(server.url())) == 4
    with (
        RedisSink(server.url("nob%40dy77:pw-of-none@"), make.run()) as sink,
        pytest.raises(SinkError, match=r"0 of 4 events.*allow it XADD") as caught,
    ):
        send(sink, make, "a")
    assert not any(secret in str(caught.value) for secret in ("pw-of-none", "dy77"))


def test_a_key_of_another_type_is_known_before_work(make: Make, start_redis: Start) -> None:
    url = start_redis().url()
    with client_library.Redis.from_url(url) as client:
        client.set(STREAM, "not a stream")
    with pytest.raises(SinkError, match="not a stream; remove or rename it"), RedisSink(url, make.run()):
        pass


def test_a_read_only_replica_is_known_before_work(make: Make, start_redis: Start) -> None:
    server = start_redis("--replicaof", "127.0.0.1 1")
    with (
        pytest.raises(SinkError, match="read-only replica; give the address"),
        RedisSink(server.url(), make.run()),
    ):
        pass


def test_out_of_memory_counts_what_was_not_delivered(make: Make, start_redis: Start) -> None:
    server = start_redis("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    started = time.monotonic()
    with RedisSink(server.url(), make.run()) as sink, pytest.raises(SinkError, match="memory") as caught:
        writer = sink.open_source(make.source("a"))
        for track_id in range(100):
            writer.track(make.ended("a", track_id, size=256))
        writer.commit(make.result("a"))
    delivered = len(entries(server.url()))
    assert 0 < delivered < 100
    assert f"{delivered} of 100 events" in str(caught.value) and f"{100 - delivered} not" in str(caught.value)
    assert time.monotonic() - started < 20


def test_a_server_gone_midway_ends_with_the_counts(make: Make, start_redis: Start) -> None:
    server = start_redis()
    started = time.monotonic()
    with RedisSink(server.url(), make.run()) as sink:
        send(sink, make, "a")
        server.stop()
        with pytest.raises(SinkError, match=r"0 of 4 events of in/b.mp4 delivered, 4 not \(4 of sources"):
            send(sink, make, "b")
    assert time.monotonic() - started < 10


def test_a_short_absence_is_bridged(make: Make, start_redis: Start) -> None:
    server = start_redis()
    with RedisSink(server.url(), make.run()) as sink:
        send(sink, make, "a")
        with client_library.Redis.from_url(server.url()) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        send(sink, make, "b")
    assert len(entries(server.url())) == 8


@pytest.mark.parametrize(
    "url",
    ["redis://", "redis://u:secret99@h:port/0", "redis://u:secret99@h/db", "redis://u:secret99@h/0?no=1",
     "http://u:secret99@h/", "/some/folder", "unix://", "redis://u:sec/ret99@h:1/0"],
)  # fmt: skip
def test_a_malformed_address_is_a_usage_error_without_secrets(make: Make, url: str) -> None:
    with pytest.raises(UsageError) as caught, open_sink(url, make.run()):
        pass
    assert not any(secret in whole_chain(caught.value) for secret in ("secret99", "ret99"))


def test_a_unix_socket(make: Make, start_redis: Start, tmp_path) -> None:
    start_redis("--unixsocket", str(tmp_path / "r.sock"))
    url = f"unix://{tmp_path}/r.sock?db=2"
    with open_sink(url, make.run()) as sink:
        send(sink, make, "a")
    assert len(entries(url)) == 4
