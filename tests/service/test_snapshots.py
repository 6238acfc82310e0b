"""What a camera sees, on its card; and the wall: in order of time, each track once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamgate.service.settings import ServiceTable, read_settings
from streamgate.service.state import ServiceState, StreamState
from streamgate.store.images import encode_jpeg
from support.browser import chromium
from support.client import Client
from support.live_service import running
from support.media import plain_frames, write_clip

Serve = Callable[..., Client]


def test_a_running_camera_shows_what_it_sees(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the HTTP side needs the serve extra")
    from streamgate.service.http import serving

    clip = write_clip(tmp_path / "empty.mp4", plain_frames(50, (640, 360), (200, 40, 40)), options={"g": "10"})
    table = ServiceTable(models="embedded", http="off", out=str(tmp_path / "out"))
    settings = read_settings(rtsp=(f"door={clip}",), table=table)
    with running(settings) as service, serving(service.state, "127.0.0.1:0", "a-token-of-some-length") as url:
        client = Client(url, "a-token-of-some-length")
        service.until(lambda: client.get("/api/streams/door/snapshot").status == 200, "a picture")
        answer = client.get("/api/streams/door/snapshot")
        assert answer.headers["content-type"] == "image/jpeg" and answer.headers["cache-control"] == "no-store"
        picture = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert picture.shape == (180, 320, 3)
        assert np.abs(picture.reshape(-1, 3).mean(0) - (200, 40, 40)).max() < 8
        assert client.get("/api/streams/hall/snapshot").status == 404
        assert client.get("/api/streams/..%2f..%2fetc%2fpasswd/snapshot").status == 404
        assert client.get("/api/streams/door/snapshot", {}).status == 401


def test_a_stream_that_is_removed_leaves_no_picture(state: ServiceState, serve: Serve) -> None:
    state.show_snapshot("hall", b"a picture")
    client = serve()
    assert client.get("/api/streams/hall/snapshot").body == b"a picture"
    state.remove_stream("hall")
    assert client.get("/api/streams/hall/snapshot").status == 404
    state.show_snapshot("hall", b"a late picture")
    assert client.get("/api/streams/hall/snapshot").status == 404


@pytest.mark.parametrize("screen", ["wide", "phone"])
def test_the_page_shows_pictures_whole_errors_and_each_track_once(
    screen: str, state: ServiceState, serve: Serve
) -> None:
    error = (
        "401: the camera refuses the user name or password; "
        "it is asked again in 15 minutes, since cameras lock accounts"
    )
    state.add_stream("dock", "rtsp://***@10.0.0.8/main", state=StreamState.FAILED, error=error)
    state.add_stream(
        "hall", "rtsp://***@10.0.0.7/hall",
        state=StreamState.RUNNING, fps=25.0, last_frame_at=datetime.now(UTC),
    )  # fmt: skip
    state.show_snapshot("hall", encode_jpeg(np.full((180, 320, 3), (30, 90, 200), np.uint8), 80))
    newest, *_ = state.faces()
    # A second rank of its track, and another track that began an hour before: it comes later and stands last.
    state.show(replace(newest, key=f"{newest.track_key}/2", id="2", record={**newest.record, "rank": 2}))
    early = {**newest.record, "captured_at": "2020-01-01T00:00:00.000Z"}
    state.show(replace(newest, key="hall/0/77/1", id="77", track_key="hall/0/77", record=early))
    with chromium(screen) as browser:
        browser.open(serve().url)
        browser.wait_for_faces(4)
        time.sleep(0.2)
        keys = browser.run("return [...document.querySelectorAll('.wall li')].map((one) => one.dataset.key)")
        assert len(keys) == 4 and keys[-1] == "hall/0/77/1" and f"{newest.track_key}/2" not in keys
        shown = "return [...document.querySelectorAll('.snapshot')].filter((one) => one.naturalWidth && !one.hidden)"
        browser.wait(lambda: browser.run(f"{shown}.length") == 1)
        cut = (
            "const all = [...document.querySelectorAll('.stream .more')];"
            "const one = all.find((one) => one.textContent.includes('401'));"
            "return one.scrollWidth > one.clientWidth || getComputedStyle(one).whiteSpace === 'nowrap'"
        )
        assert error in browser.text("#streams") and not browser.run(cut)
        assert browser.run("return document.scrollingElement.scrollWidth <= innerWidth")
        assert browser.complaints() == []
