"""What a Redis server answers costs a message and its events, never the process: bounded in time, size and kind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streamgate.errors import DeliveryError, SinkError, UsageError
from streamgate.sinks.redis import RedisSink
from streamgate.sinks.redis_stream import RedisStream
from support.command import streamgate
from support.lying_redis import LIES, PASSWORD, Lie, lying_redis
from support.media import astronaut_frames, write_clip

if TYPE_CHECKING:
    from support.sink_values import Make

QUICK = "?socket_timeout=1"
SOME = [lie for lie in LIES if lie.what in ("an error line of 100 kB", "an integer of 20,000 digits")]
DRIPS = next(lie for lie in LIES if lie.what == "a byte now and then")


def check(message: str, lie: Lie) -> None:
    assert "\n" not in message and message.isprintable() and len(message) < 900
    assert PASSWORD not in message
    assert lie.words == "" or any(words in message for words in lie.words.split("|")), message


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.what)
def test_a_lie_at_the_start_is_a_sink_that_cannot_be_used(make: Make, lie: Lie) -> None:
    with (
        lying_redis(lie) as server,
        pytest.raises(SinkError) as caught,
        RedisSink(server.url(QUICK), make.run(), retry_seconds=0.5),
    ):
        pass
    assert caught.value.exit_code == 5 and not isinstance(caught.value, DeliveryError)
    check(str(caught.value), lie)


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.what)
def test_a_lie_midway_costs_the_events_and_not_the_sources(make: Make, lie: Lie) -> None:
    with lying_redis() as server:
        with (
            pytest.raises(DeliveryError, match=r"4 of 12 finals delivered, 8 missing") as caught,
            RedisSink(server.url(QUICK), make.run(), retry_seconds=0.5) as sink,
        ):
            make.send(sink, "a")
            server.lie, server.sound_adds = lie, 4
            make.send(sink, "b")
            make.send(sink, "c")
        assert server.taken == 4
    assert caught.value.exit_code == 5
    check(str(caught.value), lie)


def test_an_end_does_not_wait_for_a_server_that_drips(make: Make) -> None:
    stop = threading.Event()
    with lying_redis() as server:
        sink = RedisSink(server.url("?socket_timeout=60"), make.run(), retry_seconds=600, stopping=stop).__enter__()
        server.lie = DRIPS
        threading.Timer(1.0, stop.set).start()
        sending = threading.Thread(target=make.send, args=(sink, "a"), daemon=True)
        sending.start()
        sending.join(60)
        assert not sending.is_alive(), "it waits for the server, whose answer takes half an hour"
        with pytest.raises(DeliveryError, match="0 of 4 finals"):
            sink.finish([], {})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *((f"?socket_timeout={seconds}", "timeouts") for seconds in ("nan", "inf", "-1", "0", "1e99")),
        *(
            (f"?{name}=3", f"unknown option '{name}'")
            for name in ("parser_class", "retry", "protocol", "connection_class")
        ),
        ("?socket_connect_timeout=1e99", "timeouts"), ("?socket_timeout=soon", "socket_timeout"),
        ("?ssl_cert_reqs=x", "invalid value|ssl"), (f"?{'x' * 3000}=1", "unknown option"),
        ("?db=" + "x" * 5000, "characters"),
    ],
)  # fmt: skip
def test_options_that_no_server_can_be_asked_with(options: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        RedisStream(f"redis://:{PASSWORD}@127.0.0.1:6379/0{options}")
    assert PASSWORD not in str(caught.value) and len(str(caught.value)) < 6000


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "face.mp4", astronaut_frames(12, (320, 240), zoom=1.6))


@pytest.mark.parametrize("lie", SOME, ids=lambda lie: lie.what)
@pytest.mark.parametrize("sound", [0, None])
def test_the_command_ends_with_5_and_the_source_is_committed(clip: Path, tmp_path: Path, lie: Lie, sound: int) -> None:
    with lying_redis(None if sound is None else lie) as server:
        lies_once_the_run_is_open = threading.Thread(target=_lie_midway, args=(server, lie, tmp_path / "out"))
        if sound is None:
            lies_once_the_run_is_open.start()
        done = streamgate("run", clip, "-o", tmp_path / "out", "--sink", server.url(QUICK), "--sink-retry", "1")
    assert done.code == 5, done.err
    assert len(list((tmp_path / "out").glob("*/source.json"))) == (0 if sound == 0 else 1)
    assert PASSWORD not in done.err and max(map(len, done.err.splitlines())) < 1500


def _lie_midway(server: object, lie: Lie, out: Path) -> None:
    while not (out / ".streamgate" / "manifest.json").exists():
        time.sleep(0.01)
    server.lie = lie  # type: ignore[attr-defined]


@pytest.mark.parametrize("when", ["start", "midway"])
def test_sigterm_ends_a_run_whose_server_drips(clip: Path, tmp_path: Path, when: str) -> None:
    out = tmp_path / "out"
    with lying_redis(DRIPS if when == "start" else None) as server:
        command = [sys.executable, "-m", "streamgate", "run", str(clip), "-o", str(out)]
        command += ["--sink", server.url("?socket_timeout=300"), "--sink-retry", "600"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            if when == "start":
                _until(lambda: server.connections > 0)
            else:
                _lie_midway(server, DRIPS, out)
                _until(lambda: bool(list(out.glob("*/source.json"))))
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            # The server's answer takes half an hour.
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in errors and PASSWORD not in errors


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
