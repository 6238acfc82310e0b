"""Cameras with two streams: faces are found in the substream and are the main stream's, at the same instant."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from streamgate.errors import UsageError
from streamgate.service.settings import ServiceTable, Settings, read_settings
from streamgate.service.state import StreamState
from support.live_service import QUICK, Running, records, running
from support.real_weights import standard_models
from support.two_streams import encode, scenes, which_picture

LOGIN = "ann:pw12345@"
MAIN_FPS = 25.0


@pytest.fixture(scope="module", autouse=True)
def _models() -> None:
    standard_models()


@pytest.fixture(scope="module")
def clips(shared_clip: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Five seconds of a woman, by what a camera sends of her."""
    source, folder = shared_clip("liveportrait_s18.mp4"), tmp_path_factory.mktemp("clips")
    stretch = (1.0, 6.0)
    return {
        "main": encode(source, folder / "main.mp4", (1920, 1080), MAIN_FPS, 4_000_000, 25, stretch),
        "rare": encode(source, folder / "rare.mp4", (1280, 720), MAIN_FPS, 2_000_000, 75, stretch),
        "sub": encode(source, folder / "sub.mp4", (640, 360), 25, 500_000, 50, stretch),
        "slow": encode(source, folder / "slow.mp4", (640, 360), 15, 500_000, 15, stretch),
    }


def settings_of(streams: dict[str, tuple[str, str]], out: Path, *settings: str) -> Settings:
    return read_settings(
        rtsp=tuple(f"{name}={main},{sub}" for name, (main, sub) in streams.items()),
        table=ServiceTable(models=str(standard_models()), http="off", out=str(out)),
        settings=(*QUICK, "live.max_track_s=3", *settings),
    )


def finals(out: Path, name: str, stream: str) -> list[dict[str, Any]]:
    return [record for record in records(out, name) if record["stream"] == stream]


def beginnings(service: Running, found: dict[str, tuple[dict[str, Any], bytes]]) -> None:
    """Note a face of each camera's substream."""
    for face in service.state.faces():
        if face.kind == "improved" and face.record["stream"] == "sub":
            found.setdefault(face.stream, (dict(face.record), face.jpeg))


def seconds_of(clip: Path, number: int | None) -> float:
    assert number is not None, "a face is of no picture of its clip"
    with av.open(str(clip)) as container:
        return number / float(container.streams.video[0].average_rate)


def test_faces_are_the_main_streams_at_the_same_instant(clips: dict[str, Path], tmp_path: Path):
    epoch = time.monotonic() - 50.0
    cameras = {
        "late": ("main", "sub", {"delay": 0.9, "drift": 200.0}),
        "early": ("rare", "slow", {"delay": -0.4, "drift": -200.0}),
    }
    mains = {
        f"/{name}": {"clip": str(clips[clip]), "epoch": epoch, **more} for name, (clip, _, more) in cameras.items()
    }
    subs = {f"/{name}": {"clip": str(clips[sub]), "epoch": epoch} for name, (_, sub, _) in cameras.items()}
    out = tmp_path / "out"
    begun: dict[str, tuple[dict[str, Any], bytes]] = {}
    with scenes(mains, subs, folder=tmp_path) as (main, sub):
        urls = {
            name: tuple(one.url(f"/{name}").replace("://", f"://{LOGIN}") for one in (main, sub)) for name in cameras
        }
        with running(settings_of(urls, out)) as service:  # type: ignore[arg-type]

            def enough() -> bool:
                beginnings(service, begun)
                return all(name in begun and len(finals(out, name, "main")) >= 3 for name in cameras)

            service.until(enough, "three faces of each main stream")
            figures = {metric.name: metric.samples for metric in service.state.registry.collect()}
            told = json.dumps([one.summary() for one in service.state.streams()]) + "\n".join(service.log)
            summary = service.stream("late").main
    assert summary is not None
    assert summary["state"] == "running" and summary["aligned"] and summary["confidence"] > 0
    assert 4 <= summary["ring_seconds"] <= 12 and 0 < summary["ring_bytes"] < 64 << 20
    assert {"streamgate_main_ring_bytes", "streamgate_main_offset_seconds", "streamgate_main_fallbacks"} <= set(figures)
    assert {sample.labels["stream"] for sample in figures["streamgate_main_faces"]} == set(cameras)
    assert "pw12345" not in told and "ann" not in told
    for name, (main_clip, sub_clip, _) in cameras.items():
        record, jpeg = begun[name]
        assert record["id"].split("/")[3] == "improved" and record["stream"] == "sub"
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        shown = seconds_of(clips[sub_clip], which_picture(image, record, clips[sub_clip], None)) - record["pts_seconds"]
        for face in finals(out, name, "main"):
            image = cv2.imread(str(out / face["image"]))
            taken = seconds_of(clips[main_clip], which_picture(image, face, clips[main_clip], None))
            off = (taken - shown - face["pts_seconds"] + 2.5) % 5.0 - 2.5
            assert abs(off) <= 1.5 / MAIN_FPS, f"{name}: {off * MAIN_FPS:.1f} pictures off"
            width = 1920 if main_clip == "main" else 1280
            assert 640 < face["box"][2] <= width
            assert face["quality"] == face["quality_smoothed"] and face["gate"]["passed"]


def test_a_stream_that_is_away_costs_only_what_is_its_own(clips: dict[str, Path], tmp_path: Path):
    epoch, out = time.monotonic() - 50.0, tmp_path / "out"
    mains = {"/cam": {"clip": str(clips["main"]), "epoch": epoch, "delay": 0.3}}
    subs = {"/cam": {"clip": str(clips["sub"]), "epoch": epoch}}
    with scenes(mains, subs, folder=tmp_path) as (main, sub):
        settings = settings_of({"cam": (main.url("/cam"), sub.url("/cam"))}, out)
        with running(settings) as service:

            def state() -> str:
                told = service.stream("cam").main
                return "" if told is None else told["state"]

            service.until(lambda: bool(finals(out, "cam", "main")), "a face of the main stream")
            main.kill()
            service.until(lambda: state() == "waiting", "the main stream to be missed")
            before = len(finals(out, "cam", "sub"))
            service.until(lambda: len(finals(out, "cam", "sub")) > before, "a face of the substream")
            service.until(lambda: (service.stream("cam").main or {})["fallbacks"]["away"] >= 1, "that to be counted")
            told = service.stream("cam").main
            assert told is not None
            assert "refused" in (told["error"] or "") or "closed" in (told["error"] or "")
            assert service.stream("cam").state is StreamState.RUNNING
            assert max(face["box"][2] for face in finals(out, "cam", "sub")) <= 640
            main.start()
            before = len(finals(out, "cam", "main"))
            service.until(lambda: len(finals(out, "cam", "main")) > before, "a face of the main stream that came back")
            sub.kill()
            service.until_state("cam", StreamState.WAITING)
            assert state() == "running"
            sub.start()
            before = len(finals(out, "cam", "main"))
            service.until(lambda: len(finals(out, "cam", "main")) > before, "a face after the substream came back")
            service.until(lambda: (service.stream("cam").main or {}).get("connects") == 2, "two connections")


def test_both_addresses_are_given_in_one_option_or_in_the_file(tmp_path: Path):
    (spec,) = read_settings(rtsp=("gate=rtsp://ann:pw12345@h/main?a=1,2,rtsp://ann:pw67890@h/sub",)).streams
    assert (spec.name, spec.url) == ("gate", "rtsp://ann:pw67890@h/sub")
    assert spec.main_url == "rtsp://ann:pw12345@h/main?a=1,2"
    assert "pw12345" not in repr(spec) and "pw67890" not in repr(spec)
    (one,) = read_settings(rtsp=("rtsp://10.0.0.7/media?codec=h264,size=large",)).streams
    assert one.main_url is None and one.url.endswith("h264,size=large")
    path = tmp_path / "streams.toml"
    path.write_text('[streams.gate]\ndetect = "rtsp://h/sub"\nrecord = "rtsps://h/main"\n')
    (spec,) = read_settings(config_file=path).streams
    assert (spec.url, spec.main_url) == ("rtsp://h/sub", "rtsps://h/main")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "give `url`, or `detect`"),
        ("detect = 'rtsp://ann:pw12345@h/1'\n", "record"),
        ("record = 'rtsp://ann:pw12345@h/1'\n", "detect"),
        ("url = 'rtsp://h/1'\nrecord = 'rtsp://ann:pw12345@h/1'\n", "together"),
        ("detect = 'rtsp://h/1'\nrecord = 'http://ann:pw12345@h/1.m3u8'\n", "must be rtsp"),
        ("detect = 'ftp://ann:pw12345@h/1'\nrecord = 'rtsp://h/1'\n", "not a supported stream URL"),
    ],
)
def test_what_is_wrong_with_them_is_said_without_secrets(tmp_path: Path, text: str, said: str):
    path = tmp_path / "streams.toml"
    path.write_text(f"[streams.gate]\n{text}")
    with pytest.raises(UsageError) as caught:
        read_settings(config_file=path)
    assert said in str(caught.value) and "[streams.gate]" in str(caught.value)
    assert "pw12345" not in str(caught.value) and "ann" not in str(caught.value)


@pytest.mark.parametrize("given", ["a=rtsp://ann:pw12345@h/1,rtsp://h/2,rtsp://h/3", "a=http://ann:pw12345@h/1,rtsp://h/2"])
def test_options_that_cannot_be_are_refused_without_secrets(given: str):
    with pytest.raises(UsageError) as caught:
        read_settings(rtsp=(given,))
    assert "pw12345" not in str(caught.value)
