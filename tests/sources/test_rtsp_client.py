"""The client of main streams, on a real RTSP server on the loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest

from streamgate.config import load_config
from streamgate.config_sections import LiveConfig
from streamgate.sources.live import FailureKind, LiveError
from streamgate.sources.rtp import UnitReader, access_unit
from streamgate.sources.rtsp_client import RtspClient, media_of
from support.media import plain_frames, write_clip
from support.rtsp_server import CameraProcess, cameras, free_port


def options(**changes: object) -> LiveConfig:
    return load_config("live").live.model_copy(update={"connect_timeout_s": 4.0, "read_timeout_s": 1.5, **changes})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", plain_frames(50, (160, 120)), options={"g": "10"})


@pytest.fixture(scope="module")
def start(clip: Path) -> Iterator[Callable[..., CameraProcess]]:
    with cameras() as start:
        yield start


@pytest.fixture(scope="module")
def camera(start: Callable[..., CameraProcess], clip: Path) -> CameraProcess:
    return start(clip)


def pictures(client: RtspClient, count: int) -> int:
    """Read and decode until so many pictures are there."""
    reader, codec, seen = UnitReader(client.media.codec, client.channel), av.CodecContext.create("h264", "r"), 0
    deadline = time.monotonic() + 20
    while seen < count:
        assert time.monotonic() < deadline, "too few pictures came"
        for unit in reader.feed(client.read()):
            seen += len(codec.decode(av.Packet(access_unit(unit, "h264"))))
    return seen


def test_it_receives_what_can_be_decoded(camera: CameraProcess):
    with RtspClient(camera.url("stream"), options()) as client:
        assert (client.media.codec, client.media.clock_rate) == ("h264", 90_000)
        assert client.media.parameter_sets.startswith(b"\x00\x00\x00\x01")
        assert pictures(client, 30) >= 30


@pytest.mark.parametrize("extra", [(), ("--digest",)])
def test_it_logs_in(start: Callable[..., CameraProcess], clip: Path, extra: tuple[str, ...]):
    camera = start(clip, options=("--user", "ann", "--password", "pw 1:2@3", *extra))
    with RtspClient(camera.url("stream", "ann:pw%201%3A2%403@"), options()) as client:
        assert pictures(client, 5) >= 5
    for credentials in ("", "ann:pw12345@"):
        with pytest.raises(LiveError) as refused:
            RtspClient(camera.url("stream", credentials), options())
        assert refused.value.kind is FailureKind.REFUSED
        assert "401" in str(refused.value) and "pw12345" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "trouble"),
    [
        ("missing", FailureKind.MISSING), ("forbidden", FailureKind.REFUSED), ("closed", FailureKind.REFUSED),
        ("garbage", FailureKind.UNREADABLE),
    ],
)  # fmt: skip
def test_troubles_are_told_apart(camera: CameraProcess, path: str, trouble: FailureKind):
    with pytest.raises(LiveError) as found:
        RtspClient(camera.url(path, "ann:pw12345@"), options())
    assert found.value.kind is trouble
    assert "pw12345" not in str(found.value) and "ann" not in str(found.value)


def test_silence_and_the_end_are_noticed(camera: CameraProcess):
    with RtspClient(camera.url("mute"), options()) as client, pytest.raises(LiveError) as silent:
        client.read()
    assert silent.value.kind is FailureKind.SILENT
    with RtspClient(camera.url("once"), options()) as client, pytest.raises(LiveError) as ended:
        while True:
            client.read()
    assert ended.value.kind is FailureKind.ENDED
    with pytest.raises(LiveError) as nobody:
        RtspClient(f"rtsp://ann:pw12345@127.0.0.1:{free_port()}/stream", options())
    assert nobody.value.kind is FailureKind.UNREACHABLE and "connection refused" in str(nobody.value)


def test_it_follows_nobody_elsewhere(start: Callable[..., CameraProcess], clip: Path):
    camera = start(clip, options=("--user", "ann", "--password", "pw12345"))
    with pytest.raises(LiveError) as moved:
        RtspClient(camera.url("moved", "ann:pw12345@"), options())
    assert "302" in str(moved.value) and "pw12345" not in str(moved.value)


def test_a_server_that_says_nothing_is_left_in_time():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []
        threading.Thread(target=lambda: taken.append(listener.accept()[0]), daemon=True).start()
        with pytest.raises(LiveError) as late:
            RtspClient(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/", options(connect_timeout_s=0.5))
        assert late.value.kind is FailureKind.UNREACHABLE and "0.5 s" in str(late.value)


def test_descriptions_of_sessions():
    head = "v=0\r\nm=audio 0 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    hevc = (
        "m=video 0 RTP/AVP 98\r\na=rtpmap:98 H265/90000\r\na=control:trackID=1\r\n"
        "a=fmtp:98 sprop-vps=QAE=;sprop-sps=QgE=;sprop-pps=RAE=\r\n"
    )
    found = media_of(head + hevc)
    assert found is not None
    assert (found.codec, found.control) == ("hevc", "trackID=1")
    assert found.parameter_sets == b"".join(b"\x00\x00\x00\x01" + bytes((kind, 1)) for kind in (0x40, 0x42, 0x44))
    assert media_of(head + "m=video 0 RTP/AVP 26\r\na=rtpmap:26 JPEG/90000\r\n") is None
    assert media_of("no session") is None
