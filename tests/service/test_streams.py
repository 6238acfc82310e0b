"""Cameras that fail in every way, watched by the whole service: they come back, and nobody else notices."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import cv2
import pytest
import redis

from streamgate.service.state import StreamState
from support.live_service import records, running, settings_of
from support.media import astronaut_frames, plain_frames, write_clip
from support.metric import metric
from support.real_weights import standard_models
from support.redis_server import RedisServer
from support.rtsp_server import CameraProcess, free_port

UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture(scope="module", autouse=True)
def _models() -> None:
    standard_models()


@pytest.fixture(scope="module")
def empty_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody in it, so that it costs little."""
    return write_clip(tmp_path_factory.mktemp("clips") / "empty.mp4", plain_frames(50, (160, 120)), options={"g": "10"})


def test_troubles_are_told_apart_and_hurt_nobody_else(
    start_camera: Callable[..., CameraProcess], empty_clip: Path, tmp_path: Path
):
    camera = start_camera(empty_clip)
    names = ("good", "closed", "forbidden", "missing", "garbage", "mute", "once")
    streams = {name: camera.url("stream" if name == "good" else name, "ann:pw12345@") for name in names}
    streams["nobody"] = f"rtsp://ann:pw12345@127.0.0.1:{free_port()}/stream"
    settings = settings_of(streams, "live.connect_timeout_s=4", out=str(tmp_path / "out"))
    with running(settings) as service:
        good = service.until_state("good", StreamState.RUNNING)
        for name, text in (("closed", "401"), ("forbidden", "403")):
            refused = service.until_state(name, StreamState.FAILED)
            assert text in (refused.error or "")
            assert refused.retry_at is not None
            assert (refused.retry_at - datetime.now(UTC)).total_seconds() > 800
        for name, text in (("missing", "404"), ("nobody", "connection refused"), ("garbage", "not a video stream")):
            service.until(lambda name=name: service.stream(name).attempts_failed >= 3, f"{name} to be tried again")
            service.until(lambda name=name, text=text: text in (service.stream(name).error or ""), f"{name}: {text}")
        service.until(lambda: "no data for" in (service.stream("mute").error or ""), "silence to be noticed")
        service.until(lambda: service.stream("once").reconnects >= 1, "the end of a stream to be a disconnect")
        # Cameras lock accounts: in all this time nobody knocked there again.
        assert service.stream("closed").attempts_failed == service.stream("forbidden").attempts_failed == 1
        service.until_frames("good", 25)
        later = service.stream("good")
        assert (later.epoch, later.reconnects, later.error) == (good.epoch, 0, None)
        assert not re.search("pw12345|ann", str(service.state.streams()) + " ".join(service.log))


def test_a_killed_and_a_frozen_camera_come_back_and_the_third_goes_on(
    start_camera: Callable[..., CameraProcess], empty_clip: Path, tmp_path: Path
):
    killed, frozen, good = (start_camera(empty_clip) for _ in range(3))
    streams = {"killed": killed.url(), "frozen": frozen.url(), "good": good.url()}
    with running(settings_of(streams, out=str(tmp_path / "out"))) as service:
        epochs = {name: service.until_state(name, StreamState.RUNNING).epoch for name in streams}
        assert all(re.fullmatch(UUID7, epoch or "") for epoch in epochs.values())
        killed.kill()
        frozen.freeze()
        service.until_state("frozen", StreamState.STALLED)
        service.until_state("killed", StreamState.WAITING)
        # FFmpeg cannot tell a broken connection from one that was closed; what follows it can.
        service.until(lambda: "connection refused" in (service.stream("killed").error or ""), "the reason")
        service.until(lambda: "no data for" in (service.stream("frozen").error or ""), "silence to be noticed")
        service.until_frames("good", 25)
        killed.start()
        frozen.thaw()
        for name in ("killed", "frozen"):
            service.until(lambda name=name: service.stream(name).reconnects >= 1, f"{name} to come back")
            back = service.until_state(name, StreamState.RUNNING)
            assert back.error is None and (back.epoch or "") > (epochs[name] or "")
            service.until_frames(name, 10)
        assert service.stream("good").epoch == epochs["good"]


def test_faces_survive_another_resolution_a_jumping_clock_and_long_tracks(
    start_camera: Callable[..., CameraProcess], shared_clip: Callable[[str], Path], tmp_path: Path
):
    small, large = shared_clip("liveportrait_d20.mp4"), shared_clip("liveportrait_d3.mp4")
    camera = start_camera(small, large)
    streams = {"change": camera.url("change"), "jump": camera.url("jump")}
    settings = settings_of(streams, "live.max_track_s=3", out=str(tmp_path / "out"))
    with running(settings) as service:
        service.until(lambda: service.stream("change").faces >= 5 and service.stream("jump").faces >= 3, "faces")
        for name in streams:
            assert service.stream(name).reconnects == 0, "a change in the stream broke the connection"
    for name in streams:
        found = records(tmp_path / "out", name)
        assert len({record["id"] for record in found}) == len(found) == service.stream(name).faces
        for record in found:
            track = record["track"]
            assert track["last_pts"] - track["first_pts"] < 6, "a track outlived its greatest age"
            assert track["last_pts"] < 600, "a leap of the camera's clock came through"
            assert record["captured_at"] < record["ended_at"]
            assert (tmp_path / "out" / record["image"]).is_file()
    assert metric(service.state, "streamgate_final_latency_seconds_count") >= 8


def test_better_faces_are_told_while_the_track_lives_and_the_final_replaces_them(tmp_path: Path):
    """A face that comes into focus: quality grows with time."""
    sharp = astronaut_frames(75, (640, 480), step=0.5, zoom=1.6)
    blurred = [cv2.GaussianBlur(frame, (0, 0), max(0.1, 6.0 - index * 0.12)) for index, frame in enumerate(sharp)]
    clip = write_clip(tmp_path / "focus.mp4", [*blurred, *plain_frames(40, (640, 480))])
    settings = settings_of({"focus": str(clip)}, "live.improved_interval_s=0.4", out=str(tmp_path / "out"))
    with running(settings) as service, service.state.hub.subscribe(limit=1000) as take:
        service.until(lambda: service.stream("focus").faces >= 1, "a final face")
        seen = [json.loads(data) for _, kind, data in take() if kind == "face"]
    first_track = [face for face in seen if face["key"] == seen[0]["key"]]
    kinds = [face["kind"] for face in first_track]
    assert kinds[0] == "improved" and kinds[-1] == "final" and kinds.count("final") == 1
    improved = [face["record"] for face in first_track[:-1]]
    assert [record["id"].rsplit("/", 1)[1] for record in improved] == [str(n) for n in range(1, len(improved) + 1)]
    qualities = [record["quality_smoothed"] for record in improved]
    gain = settings.config.live.improved_gain
    assert all(after >= before + gain - 1e-3 for before, after in pairwise(qualities))
    assert all(record["ended_at"] is None for record in improved)
    final = first_track[-1]["record"]
    assert final["quality_smoothed"] >= qualities[-1] and final["ended_at"] is not None
    assert first_track[-1]["track_key"] == f"focus/{final['id'].split('/')[1]}/{final['track_id']}"


def test_a_track_that_keeps_nothing_says_so_once_without_a_picture(
    start_redis: Callable[..., RedisServer], tmp_path: Path
):
    clip = write_clip(tmp_path / "face.mp4", astronaut_frames(50, (640, 480), step=0.5, zoom=1.6))
    server = start_redis()
    settings = settings_of(
        {"strict": str(clip)},
        "keep.fallback=none",
        "measures.serfiq.min=100",
        redis=server.url(),
        spool=str(tmp_path / "s"),
    )
    with running(settings) as service:
        service.until(lambda: metric(service.state, "streamgate_events_total", kind="final") >= 1, "a final")
    with redis.Redis.from_url(server.url()) as client:
        entries = [fields for _, fields in client.xrange("streamgate:faces")]
    assert [fields[b"kind"] for fields in entries] == [b"final"] * len(entries)
    assert len({fields[b"id"] for fields in entries}) == len(entries)
    record = json.loads(entries[0][b"json"])
    assert b"jpeg" not in entries[0] and record["rank"] == 0 and record["quality"] is None
    assert "serfiq_low" in record["gate"]["reasons"] and record["ended_at"] is not None
    assert record["id"] == entries[0][b"id"].decode() and record["id"].endswith("/final/0/0")
    assert service.state.faces() == ()
