"""`POST /api/score`: a picture in, its faces out, within the limits of `streamgate score`."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import cv2
import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.engine import Engine
from streamgate.service.scoring import MAX_BYTES, MAX_WAITING
from streamgate.service.state import ServiceState
from streamgate.sources.images import rgb_of
from streamgate.store.records import score_record
from support.client import Answer, Client
from support.media import astronaut
from support.metric import metric

pytest.importorskip("fastapi", reason="the HTTP side needs the serve extra")
from streamgate.service.http import serving

TOKEN = "correct horse battery staple"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(load_config(), models="embedded", device="cpu") as opened:
        yield opened


@pytest.fixture
def state(engine: Engine) -> ServiceState:
    state = ServiceState()
    state.scorer = lambda data, aligned: engine.score(
        rgb_of(np.frombuffer(data, np.uint8), engine.config.decoding.max_pixels), aligned=aligned
    )
    return state


@pytest.fixture
def serve(state: ServiceState) -> Iterator[Callable[..., Client]]:
    with ExitStack() as running:
        yield lambda token=None: Client(running.enter_context(serving(state, "127.0.0.1:0", token or "")), token)


def encoded(rgb: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, rgb[..., ::-1])[1].tobytes()


def huge_png() -> bytes:
    """The head of a PNG of 60,000 x 60,000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_faces_come_as_score_gives_them(serve: Callable[..., Client], engine: Engine) -> None:
    client = serve()
    picture = astronaut()
    answer = client.send("/api/score", encoded(picture))
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    expected = score_record("", engine.score(picture), embedding=False)
    assert answer.json["faces"] == expected["faces"] and len(answer.json["faces"]) == 1
    assert "embedding" not in answer.body.decode() and "image" not in answer.json
    assert client.send("/api/score", encoded(np.zeros((64, 64, 3), np.uint8))).json["faces"] == []
    # A JPEG in chunks, and a ready crop.
    assert len(client.send("/api/score", iter([encoded(picture, ".jpg")])).json["faces"]) == 1
    crop = cv2.resize(picture[40:200, 150:310], (112, 112))
    (ready,) = client.send("/api/score?aligned=arcface", encoded(crop)).json["faces"]
    assert ready["measures"]["serfiq"]["status"] == "ok"


@pytest.mark.parametrize(
    ("body", "query", "status", "words"),
    [
        (b"", "", 422, "the body is empty"),
        (b"no picture at all", "", 422, "the body is not a picture"),
        (encoded(astronaut())[:2000], "", 422, "the body"),
        (huge_png(), "", 422, "pixels"),
        (b"x", "?aligned=face", 400, "`arcface` or `ffhq`"),
    ],
)
def test_what_is_no_picture_is_answered_in_words(
    body: bytes, query: str, status: int, words: str, serve: Callable[..., Client], state: ServiceState
) -> None:
    answer = serve().send(f"/api/score{query}", body)
    assert answer.status == status and words in answer.json["error"] and "\n" not in answer.json["error"]
    assert metric(state, "streamgate_faults_total", what="http") == 0


def test_bodies_have_a_limit_whether_they_say_their_length_or_not(serve: Callable[..., Client]) -> None:
    client = serve()
    answer = client.send("/api/score", b"", {"Content-Length": str(MAX_BYTES + 1)})
    assert answer.status == 413 and "64 MiB" in answer.json["error"]
    part = bytes(1 << 20)
    with suppress(BrokenPipeError, ConnectionResetError):  # where it hangs up before everything was sent
        assert client.send("/api/score", (part for _ in range((MAX_BYTES >> 20) + 8))).status == 413
    assert client.get("/api/score").status == 405
    form = client.send("/api/score", b"--x--", {"Content-Type": "multipart/form-data; boundary=x"})
    assert form.status == 415 and "--data-binary" in form.json["error"]


def test_only_who_may_look_may_score(serve: Callable[..., Client]) -> None:
    client = serve(TOKEN)
    body = encoded(astronaut())
    assert client.send("/api/score", body, {}).status == 401
    assert client.send("/api/score", body, {"Authorization": "Bearer wrong"}).status == 401
    assert client.send("/api/score", body).status == 200
    foreign = {"Authorization": f"Bearer {TOKEN}", "Origin": "http://evil.example"}
    assert client.send("/api/score", body, foreign).status == 403


def test_when_too_many_wait_others_are_told_to_come_back(state: ServiceState, serve: Callable[..., Client]) -> None:
    go_on, refused = threading.Event(), threading.Event()

    def slow(data: bytes, aligned: str | None) -> list[Any]:
        assert go_on.wait(60)
        return []

    state.scorer = slow
    client = serve()
    body = encoded(np.zeros((8, 8, 3), np.uint8))
    found: list[Answer] = []

    def send() -> None:
        found.append(client.send("/api/score", body))
        refused.set()

    sending = [threading.Thread(target=send) for _ in range(MAX_WAITING + 1)]
    for one in sending:
        one.start()
    assert refused.wait(15)
    assert client.get("/api/streams").status == 200, "the rest answers meanwhile"
    go_on.set()
    for one in sending:
        one.join(60)
    assert [answer.status for answer in found] == [503] + [200] * MAX_WAITING
    assert found[0].headers["retry-after"] and "try again" in found[0].json["error"]
    state.scorer = None
    answer = client.send("/api/score", body)
    assert answer.status == 503 and "networks" in answer.json["error"]
