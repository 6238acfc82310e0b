"""`streamgate serve` as a process of its own: killed, stopped, reloaded, and searched for secrets."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from conftest import REPOSITORY
from streamgate.service.spool import Spool
from streamgate.sinks.redis_stream import pack
from support.command import streamgate
from support.hostile_peers import PEERS, Peers, crowd
from support.hostile_settings import BAD_FILES, remove
from support.hostile_spool import FOREIGN, HEAD, INTRUDERS
from support.live_service import QUICK, records
from support.media import plain_frames, write_clip
from support.real_weights import standard_models
from support.redis_server import RedisServer
from support.rtsp_server import CameraProcess
from support.serve_process import serving

SECRETS = ("ann", "pw12345", "rd98765")
STREAM = "streamgate:faces"


class Consumer:
    """examples/consume.py at work."""

    def __init__(self, url: str, folder: Path, *options: str) -> None:
        command = [sys.executable, str(REPOSITORY / "examples" / "consume.py"), url, str(folder)]
        self._process = subprocess.Popen(
            [*command, "--claim-after-ms", "100", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def taken(self, *, stop: bool) -> list[str]:
        """Ids it has taken until it was stopped, or until nothing more came (with --until-idle)."""
        if stop:
            self._process.terminate()
        out, errors = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, errors
        return [json.loads(line)["id"] for line in out.splitlines()]


def sent(server: RedisServer) -> list[dict[bytes, bytes]]:
    with redis.Redis.from_url(server.url("default:rd98765@")) as client:
        return [fields for _, fields in client.xrange(STREAM)]


def test_each_final_comes_exactly_once_across_a_killed_camera_a_killed_service_and_a_killed_redis(
    start_camera: Callable[..., CameraProcess],
    start_redis: Callable[..., RedisServer],
    shared_clip: Callable[[str], Path],
    tmp_path: Path,
):
    camera = start_camera(shared_clip("liveportrait_d20.mp4"), options=("--user", "ann", "--password", "pw12345"))
    server = start_redis("--requirepass", "rd98765", "--appendonly", "yes", "--appendfsync", "always")
    url, out, took = server.url("default:rd98765@"), tmp_path / "out", tmp_path / "took"
    arguments = (
        "--rtsp", f"door={camera.url(credentials='ann:pw12345@')}", "--redis", url, "--out", out, "--http", "off",
    )  # fmt: skip
    settings = (*QUICK, "live.max_track_s=2")

    with serving(tmp_path, *arguments, settings=settings) as service:
        service.until(lambda: len(records(out, "door")) >= 2, "faces")
        consumer = Consumer(url, took)
        # The camera dies and comes back, which is another epoch; then Redis dies.
        camera.kill()
        service.until(lambda: "closed the connection" in service.said(), "the loss of the camera")
        camera.start()
        service.until(lambda: service.said().count("running,") == 2, "the camera's return")
        server.stop()
        service.until(lambda: "waiting in the spool" in service.said(), "the loss of Redis")
        before = len(records(out, "door"))
        service.until(lambda: len(records(out, "door")) >= before + 2, "faces while Redis is away")
        spooled = sum(path.stat().st_size for path in (out / ".streamgate" / "spool").glob("*.spool"))
        assert spooled > 0
        # The consumer has met a Redis that went away; it stops in the middle of things.
        first = consumer.taken(stop=True)
        service.process.kill()
        service.process.wait(10)
    found_in_spool = leaks(out / ".streamgate")
    assert not found_in_spool, f"secrets in the spool: {found_in_spool}"

    server.start_again()
    consumer = Consumer(url, took)
    with serving(tmp_path, *arguments, settings=settings) as service:
        before = len(records(out, "door"))
        service.until(lambda: len(records(out, "door")) >= before + 1, "faces after the restart")
        assert "of an earlier run are waiting in the spool" in service.said()
        assert service.end() == 0
        assert "did not stop in time" not in service.said()

    events = sent(server)
    finals = [one[b"id"].decode() for one in events if one[b"kind"] == b"final"]
    taken = [*first, *consumer.taken(stop=True)]
    taken += Consumer(url, took, "--until-idle", "2").taken(stop=False)
    assert len(taken) == len(set(taken)), "the consumer took a final twice"
    assert set(taken) == set(finals)
    # What was killed may have lost the face in its hands, between spool and disk or before both; nothing else.
    written = [record["id"] for record in records(out, "door")]
    assert len(set(written)) == len(written)
    assert set(written) <= set(finals)
    assert len(set(finals) - set(written)) <= 1 + sum(json.loads(one[b"json"])["rank"] == 0 for one in events)
    assert len({name.split("/")[1] for name in finals}) == 3, "a connection is an epoch"
    for one in events:
        assert not any(secret.encode() in one[b"json"] for secret in SECRETS)
    assert not leaks(tmp_path)


def test_a_stop_does_not_wait_for_a_camera_or_a_redis_that_hangs_and_loses_nothing(
    start_camera: Callable[..., CameraProcess],
    start_redis: Callable[..., RedisServer],
    shared_clip: Callable[[str], Path],
    tmp_path: Path,
):
    camera, server = start_camera(shared_clip("liveportrait_d20.mp4")), start_redis()
    arguments = ("--rtsp", f"door={camera.url()}", "--redis", server.url(), "--out", "out", "--http", "off")
    patient = (*QUICK, "live.read_timeout_s=600", "live.stall_s=600", "live.max_track_s=2")
    with serving(tmp_path, *arguments, settings=patient) as service:
        service.until(lambda: len(records(tmp_path / "out", "door")) >= 1, "a face")
        camera.freeze()
        server.process.send_signal(signal.SIGSTOP)
        assert service.end() == 0
    written = {record["id"] for record in records(tmp_path / "out", "door")}
    server.process.send_signal(signal.SIGCONT)
    with serving(tmp_path, *arguments, settings=patient) as service:
        with redis.Redis.from_url(server.url()) as client:
            service.until(lambda: written <= {fields[b"id"].decode() for _, fields in client.xrange(STREAM)}, "all")
        service.until(lambda: "watching" in service.said(), "its start")
        assert service.end() == 0


def leaks(folder: Path) -> list[str]:
    """Files below a folder that hold a secret, pictures left out (their bytes may spell anything)."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in (".png", ".jpg", ".mp4", ".aof", ".rdb", ".toml"):
            data = path.read_bytes()
            # Short ones come about in pictures by chance.
            secrets = [secret for secret in SECRETS if len(secret) > 3 or path.suffix != ".spool"]
            found += [f"{path.name}: {secret}" for secret in secrets if _holds(data, secret)]
    return found


def _holds(data: bytes, secret: str) -> bool:
    return re.search(rb"(?<![A-Za-z])" + secret.encode() + rb"(?![A-Za-z])", data) is not None


def test_reloading_changes_what_changed_and_a_broken_file_nothing(
    start_camera: Callable[..., CameraProcess], shared_clip: Callable[[str], Path], tmp_path: Path
):
    camera = start_camera(shared_clip("liveportrait_d20.mp4"))
    url = camera.url("stream", "ann:pw12345@")
    config = tmp_path / "streams.toml"

    def write(*streams: str, **changes: str) -> None:
        tables = [f'[streams.{name}]\nurl = "{url}"\n{changes.get(name, "")}' for name in streams]
        config.write_text('[service]\nout = "out"\nhttp = "127.0.0.1:0"\n' + "\n".join(tables))

    write("stays", "goes", "changes")
    with serving(tmp_path, "--config", config) as service:
        service.until(lambda: service.said().count("running,") == 3, "three streams")
        epoch = service.until(lambda: (service.stream("stays") or {}).get("epoch"), "an epoch")
        changed = service.stream("changes")

        config.write_text(f'[streams.stays]\nurl = "{url}"\nset = {{ "measures.yaw.mox" = 3 }}\n')
        service.process.send_signal(signal.SIGHUP)
        service.until(lambda: "configuration is invalid" in service.said(), "the refusal")
        assert "measures.yaw.max" in service.said(), "no hint at the key that was meant"
        overview = service.get("/api/streams") + service.get("/metrics")
        assert "streamgate_config_error 1.0" in overview
        assert {one for one in ("stays", "goes", "changes") if service.stream(one)} == {"stays", "goes", "changes"}

        write("stays", "changes", "comes", changes='set = { "measures.yaw.max" = 20 }')
        service.process.send_signal(signal.SIGHUP)
        service.until(lambda: "1 added, 1 changed, 1 removed" in service.said(), "the reload")
        service.until(lambda: service.stream("comes") and service.stream("comes")["state"] == "running", "the new one")
        service.until(
            lambda: (
                service.stream("changes")["state"] == "running"
                and service.stream("changes")["epoch"] != changed["epoch"]
            ),
            "the changed one",
        )
        assert service.stream("goes") is None
        assert service.stream("stays")["epoch"] == epoch, "an unchanged stream was touched"
        shown = "".join(service.get(path) for path in ("/api/streams", "/api/faces", "/metrics", "/"))
        assert not any(_holds(shown.encode(), secret) for secret in SECRETS)
        assert service.end() == 0
    assert not leaks(tmp_path)


def test_whatever_the_file_holds_at_a_reload_the_service_goes_on(shared_clip: Callable[[str], Path], tmp_path: Path):
    config, sound = tmp_path / "streams.toml", f'[streams.door]\nurl = "{shared_clip("liveportrait_d6.mp4")}"\n'
    config.write_text(sound)
    with serving(tmp_path, "--config", config, "--http", "off") as service:
        service.until(lambda: "running, 480x480" in service.said(), "the stream")
        for number, bad in enumerate(BAD_FILES, 1):
            remove(config)
            bad.put(config)
            service.process.send_signal(signal.SIGHUP)
            service.until(
                lambda number=number: service.said().count("configuration is invalid") == number,
                f"{bad.what} to be reported",
            )
            line = service.said().splitlines()[-1]
            assert "the previous one stays active" in line and bad.words in line and len(line) < 900
        remove(config)
        config.write_text(sound + sound.replace("door", "hall"))
        service.process.send_signal(signal.SIGHUP)
        service.until(lambda: "1 added, 0 changed, 0 removed" in service.said(), "the sound file")
        assert service.end() == 0


def test_a_storm_of_reloads_stops_nothing(shared_clip: Callable[[str], Path], tmp_path: Path) -> None:
    """A signal may come while the service holds the very lock that its answer would want."""
    config = tmp_path / "streams.toml"
    config.write_text(f'[streams.door]\nurl = "{shared_clip("liveportrait_d6.mp4")}"\n')
    with serving(tmp_path, "--config", config, "--http", "off") as service:
        service.until(lambda: "running, 480x480" in service.said(), "the stream")
        for _ in range(100_000):
            service.process.send_signal(signal.SIGHUP)
        before = service.said().count("configuration read")
        service.process.send_signal(signal.SIGHUP)
        service.until(lambda: service.said().count("configuration read") > before, "a reload behind them")
        assert service.end() == 0


def test_a_file_plays_as_a_camera_and_ctrl_c_flushes_its_faces(shared_clip: Callable[[str], Path], tmp_path: Path):
    clip = shared_clip("liveportrait_d6.mp4")  # one face for 34 seconds
    with serving(tmp_path, "--rtsp", clip, "--http", "off") as service:
        service.until(lambda: "running, 480x480" in service.said(), "the file")
        out = tmp_path / "streamgate-live"
        name = "liveportrait_d6"
        time.sleep(3.0)  # into the track, which would go on for long
        assert not records(out, name)
        assert service.end(signal.SIGINT) == 130
    (record,) = records(out, name)
    assert record["source"].startswith("file://") and record["ended_at"] > record["captured_at"]
    assert (out / record["image"]).is_file()


def test_a_signal_that_comes_twice_in_a_row_is_one_request(shared_clip: Callable[[str], Path], tmp_path: Path):
    """As `timeout` sends it: to its child, then to the child's whole group."""
    with serving(tmp_path, "--rtsp", shared_clip("liveportrait_d6.mp4"), "--http", "off") as service:
        service.until(lambda: "running, 480x480" in service.said(), "the file")
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.02)  # for the first to be heard alone
        assert service.end(signal.SIGTERM) == 0
        assert "stopped" in service.said()


# Peers that ask for much and take nothing may cost single answers, so they are left out.
@pytest.mark.parametrize("peers", [*PEERS[:5], *PEERS[6:]], ids=lambda peers: peers.what)
def test_a_crowd_of_hostile_peers_costs_neither_page_nor_cameras_nor_log(
    start_camera: Callable[..., CameraProcess], tmp_path: Path, peers: Peers
):
    clip = write_clip(tmp_path / "empty.mp4", plain_frames(50, (160, 120)), options={"g": "10"})
    camera = start_camera(clip)
    arguments = ("--rtsp", f"door={camera.url()}", "--out", "out", "--http", "127.0.0.1:0")
    with serving(tmp_path, *arguments, descriptors=256) as service:
        service.until(lambda: (service.stream("door") or {}).get("state") == "running", "the camera")
        with crowd(int(service.address.rpartition(":")[2]), peers) as many:
            service.until(lambda: many.opened >= peers.count, "the crowd")
            for _ in range(10):
                assert "true" in service.get("/healthz")
            camera.kill()
            service.until(lambda: service.stream("door")["state"] != "running", "the loss of the camera")
            camera.start()
            service.until(lambda: service.stream("door")["state"] == "running", "its return")
            assert 'streamgate_http_closed_total{why="crowded"}' in service.get("/metrics")
        assert len(service.said().splitlines()) < 40, service.said()
        assert service.end() == 0


def test_damage_in_the_spool_is_shown_and_the_rest_arrives(
    start_redis: Callable[..., RedisServer], tmp_path: Path
):
    server = start_redis()
    items = [pack({"id": f"door/0/{number}/final/1/0", "kind": "final", "json": "{}"}) for number in range(15)]
    with Spool(tmp_path / "spool", 1 << 20) as spool:
        spool.append(items)
    (segment,) = (tmp_path / "spool").glob("*.spool")
    data = bytearray(segment.read_bytes())
    data[HEAD + 3] ^= 4
    segment.write_bytes(data)
    (tmp_path / "spool" / "00000004.spool").write_bytes(FOREIGN["an unknown mark"])
    config = tmp_path / "streams.toml"
    config.write_text(f'[service]\nredis = "{server.url()}"\nspool = "spool"\nhttp = "127.0.0.1:0"\n')
    with serving(tmp_path, "--config", config) as service:
        service.until(lambda: "watching" in service.said(), "its start")
        service.until(lambda: len(server.entries()) == 14, "what is sound")
        service.until(lambda: "streamgate_spool_set_aside_total 2.0" in service.get("/metrics"), "the figures")
        assert "streamgate_spool_damaged_total 2.0" in service.get("/metrics")
        redis_figures = json.loads(service.get("/api/streams"))["overview"]["destinations"]["redis"]
        assert (redis_figures["spool_damaged"], redis_figures["spool_set_aside"]) == (2, 2)
        assert "damaged places in 00000001.spool, 00000004.spool: 2;" in service.said()
        assert "the intact events in these files (14) are sent" in service.said()
        assert service.end() == 0


@pytest.mark.parametrize("put", INTRUDERS.values(), ids=INTRUDERS.keys())
def test_a_spool_that_none_has_written_keeps_it_from_starting(put: Callable[[Path], object], tmp_path: Path):
    with Spool(tmp_path / "spool", 1 << 20) as spool:
        spool.append([b"one"])
    put(tmp_path / "spool")
    done = streamgate(
        "serve", "--rtsp", "rtsp://127.0.0.1:1/x", "--http", "off", "--redis", "redis://127.0.0.1:1/0",
        "--spool", tmp_path / "spool", models=standard_models(),
    )  # fmt: skip
    assert done.code == 5 and "Traceback" not in done.err
    assert str(tmp_path / "spool") in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "no stream"),
        (("--rtsp", "ftp://ann:pw12345@host/x"), 2, "not a supported stream URL"),
        (("--rtsp", "door=rtsp://h/1", "--rtsp", "door=rtsp://h/2"), 2, "two streams with this name"),
        (("--rtsp", "rtsp://h/1", "--max-gb", "-1"), 2, "max_gb"),
        (("--rtsp", "rtsp://h/1", "--redis", "redis://ann:pw12345@host:port/0"), 2, "malformed"),
        (("--rtsp", "rtsp://h/1", "--set", "identity.store=disk"), 2, "no embeddings"),
        (("--rtsp", "rtsp://h/1", "--preset", "liev"), 2, "did you mean live"),
        (("--rtsp", "rtsp://h/1", "--http", "0.0.0.0:0"), 2, "STREAMGATE_TOKEN"),
        (("--rtsp", "rtsp://h/1", "--http", "off", "--out", "/proc/nowhere"), 5, "cannot write"),
        (("--config", "missing.toml"), 2, "no such file"),
        (("--rtsp", "rtsp://h/1", "--redis", "localhost"), 2, "use redis://localhost:6379/0"),
        (("--rtsp", "rstp://ann:pw12345@h/1"), 2, "did you mean rtsp://?"),
        (("--rtsp", "rtsp:/h/1"), 2, "write rtsp://HOST/PATH"),
        (("--rtsp", "10.0.0.7/main"), 2, "rtsp://HOST/PATH"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(
    arguments: tuple[str, ...], code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STREAMGATE_TOKEN", raising=False)
    done = streamgate("serve", *arguments, models=standard_models())
    assert (done.code, text in done.err) == (code, True), done.err
    assert "pw12345" not in done.err and "ann" not in done.err.replace("channel", "").replace("cannot", "")
