"""The Redis sink against a real redis-server."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from streamgate.errors import UsageError
from streamgate.sinks import open_sink
from streamgate.sinks.redis import RedisSink
from support.redis_server import entries

if TYPE_CHECKING:
    from support.redis_server import RedisServer
    from support.sink_values import Make

    Start = Callable[..., RedisServer]


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
        make.send(sink, "a")
    assert len(entries(url)) == 4


def test_an_option_that_there_is_not_is_named(make: Make) -> None:
    with pytest.raises(UsageError, match="unknown option 'colour' after the"):
        open_sink("redis://h/0?colour=red", make.run())
