"""User and password reach the camera that the address names, and nobody it sends us to."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from streamgate.config import load_config
from streamgate.config_sections import LiveConfig
from streamgate.sources.live import FailureKind, LiveConnection, LiveError
from streamgate.sources.rtsp_login import LoginRelay
from support.media import astronaut_frames, write_clip
from support.redirecting import asks, listening, sends
from support.rtsp_server import CameraProcess

USER, PASSWORD = "ann77", "p@ss:w/rd 12345"
LOGIN = "ann77:p%40ss%3Aw%2Frd%2012345@"
SPOKEN = (USER, PASSWORD, LOGIN[:-1], base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())


def options(**changes: object) -> LiveConfig:
    quick = {"connect_timeout_s": 5.0, "read_timeout_s": 3.0}
    return load_config("live").live.model_copy(update={**quick, **changes})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("c") / "c.mp4", astronaut_frames(30, (320, 240)), options={"g": "15"})


@pytest.mark.parametrize("then", ["basic", "digest"])
@pytest.mark.parametrize("after", [None, "basic", "digest"])
@pytest.mark.parametrize("when", ["OPTIONS", "DESCRIBE"])
@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_of_rtsp_takes_no_password_along(when: str, after: str | None, then: str, status: int) -> None:
    with (
        listening(asks(then)) as other,
        listening(sends(lambda: f"rtsp://127.0.0.1:{other.port}/x", when, after, status)) as first,
    ):
        with pytest.raises(LiveError) as caught:
            LiveConnection(f"rtsp://{LOGIN}127.0.0.1:{first.port}/s", options())
        assert other.connections > 0, "it was not followed, so that nothing is shown"
        assert not other.holds(*SPOKEN, "uthorization:")
        assert first.holds("uthorization:") == (after is not None)
    assert not any(secret in str(caught.value) for secret in SPOKEN)


@pytest.mark.parametrize("then", ["basic", "digest"])
@pytest.mark.parametrize("after", [None, "basic", "digest"])
def test_a_redirect_of_http_takes_no_password_along(after: str | None, then: str) -> None:
    with (
        listening(asks(then)) as other,
        listening(sends(lambda: f"http://127.0.0.1:{other.port}/x", "GET", after)) as first,
    ):
        with pytest.raises(LiveError):
            LiveConnection(f"http://{LOGIN}127.0.0.1:{first.port}/s", options())
        assert other.connections > 0 and not other.holds(*SPOKEN, "uthorization:")


def test_a_second_connection_that_is_redirected_takes_none_along_either() -> None:
    """What a probe beforehand would not find."""
    asked = []
    with listening(asks("basic")) as other:
        elsewhere = sends(lambda: f"rtsp://127.0.0.1:{other.port}/x", "DESCRIBE", "basic")

        def turns(method: str, url: str, headers: dict[str, str]) -> str | None:
            asked.append(method)
            return None if len(asked) < 3 else elsewhere(method, url, headers)

        with listening(turns) as first:
            for _ in range(4):
                with pytest.raises(LiveError):
                    LiveConnection(f"rtsp://{LOGIN}127.0.0.1:{first.port}/s", options())
        assert other.connections > 0 and not other.holds(*SPOKEN, "uthorization:")


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("path", ["stream", "moved"])
@pytest.mark.parametrize("digest", [(), ("--digest",)], ids=["basic", "digest"])
def test_the_camera_itself_gets_it(
    start_camera: Callable[..., CameraProcess], clip: Path, digest: tuple[str, ...], path: str, transport: str
) -> None:
    camera = start_camera(clip, options=("--user", USER, "--password", PASSWORD, *digest))
    with LiveConnection(camera.url(path, LOGIN), options(transport=transport)) as connection:
        assert {frame.width for frame, _ in islice(connection.frames(), 20)} == {320}
    with pytest.raises(LiveError) as caught:
        LiveConnection(camera.url(path, "ann77:wr0ng@"), options(transport=transport))
    assert caught.value.kind is FailureKind.REFUSED and "wr0ng" not in str(caught.value)


@pytest.mark.parametrize("digest", [(), ("--digest",)], ids=["basic", "digest"])
def test_a_name_in_any_letters_is_sent_as_utf_8(
    start_camera: Callable[..., CameraProcess], clip: Path, digest: tuple[str, ...]
) -> None:
    camera = start_camera(clip, options=("--user", "Łukasz 山", "--password", "päß", *digest))
    with LiveConnection(camera.url("stream", "%C5%81ukasz%20%E5%B1%B1:p%C3%A4%C3%9F@"), options()) as connection:
        assert next(connection.frames())[0].width == 320


@pytest.fixture
def relay(start_camera: Callable[..., CameraProcess], clip: Path) -> Iterator[LoginRelay]:
    camera = start_camera(clip, options=("--user", USER, "--password", PASSWORD))
    relay = LoginRelay(camera.url("stream", LOGIN), 5.0)
    yield relay
    relay.close()


@pytest.mark.parametrize("kind", ["Basic realm", 'Digest nonce="1", realm', 'Digest stale=true, nonce="1", realm'])
@pytest.mark.parametrize("when", ["OPTIONS", "DESCRIBE"])
def test_a_wrong_password_is_not_tried_again_and_again(when: str, kind: str) -> None:
    """Also where each refusal asks in other words, as most cameras do: an account locks after a few attempts."""
    asked: list[str] = []

    def anew(method: str, url: str, headers: dict[str, str]) -> str:
        if method == when or method != "OPTIONS":
            asked.append(headers.get("authorization", ""))
            return f'401 Unauthorized\r\nWWW-Authenticate: {kind}="{len(asked)}"'
        return "200 OK\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY"

    with listening(anew) as camera, pytest.raises(LiveError) as caught:
        LiveConnection(f"rtsp://{LOGIN}127.0.0.1:{camera.port}/s", options())
    assert caught.value.kind is FailureKind.REFUSED
    assert 1 <= sum(map(bool, asked)) <= 3


def test_another_program_gets_no_picture_through_it(relay: LoginRelay) -> None:
    address = relay.url.partition("://")[2]
    port = int(address.partition(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port), 10) as other:
        other.sendall(f"DESCRIBE rtsp://127.0.0.1:{port}/stream RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
        assert other.recv(1000) == b""


def test_a_camera_that_is_away_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(LiveError, match="connection refused") as caught:
        LiveConnection(f"rtsp://{LOGIN}127.0.0.1:{port}/s", options())
    assert caught.value.kind is FailureKind.UNREACHABLE
