"""`streamgate serve` from camera to browser: a face comes over RTSP, appears on the page and opens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from support.browser import chromium
from support.client import Client
from support.media import astronaut_frames, plain_frames, write_clip
from support.real_weights import standard_models
from support.rtsp_server import CameraProcess, free_port

USER, PASSWORD = "watchman", "pa55-of-the-camera"
TOKEN = "correct horse battery staple"


@contextmanager
def serving(folder: Path, *streams: str, token: str = "") -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    """The command in a process of its own, once it answers."""
    pytest.importorskip("fastapi", reason="the page needs the serve extra")
    models, port = standard_models(), free_port()
    arguments = [argument for stream in streams for argument in ("--rtsp", stream)]
    environment = os.environ | {"STREAMGATE_MODELS": str(models), "STREAMGATE_TOKEN": token}
    process = subprocess.Popen(
        [sys.executable, "-m", "streamgate", "serve", *arguments, "--out", str(folder / "out"),
         "--http", f"127.0.0.1:{port}", "--set", "live.improved_interval_s=0.5"],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    client = Client(f"http://127.0.0.1:{port}", token or None)
    try:
        for _ in range(1200):
            try:
                client.get("/healthz")
                break
            except OSError:
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.1)
        yield client, process
    finally:
        process.kill()
        process.wait(20)


@pytest.fixture
def camera(start_camera: Callable[..., CameraProcess], tmp_path: Path) -> CameraProcess:
    """Somebody comes, goes and comes again; user and password are asked for."""
    frames = [*astronaut_frames(50, (640, 480), step=1.0, zoom=1.6), *plain_frames(25, (640, 480))]
    clip = write_clip(tmp_path / "door.mp4", frames, options={"g": "10"})
    return start_camera(clip, options=("--user", USER, "--password", PASSWORD))


def test_a_face_comes_from_the_camera_to_the_page_and_opens(camera: CameraProcess, tmp_path: Path) -> None:
    url = camera.url("stream", f"{USER}:{PASSWORD}@")
    with chromium() as browser, serving(tmp_path, f"door={url}", token=TOKEN) as (client, process):
        browser.open(client.url)
        browser.press(*TOKEN, "ENTER")
        browser.wait(lambda: "Running" in browser.text(".stream"), seconds=120)
        browser.wait_for_faces()
        browser.click(".tile")
        browser.wait(lambda: browser.run("return document.getElementById('detail').open"))
        assert browser.text("#detail-title") == "door"
        assert int(browser.text("#quality")) > 0
        assert browser.count(".measure:not(.absent)") == 15
        browser.wait(lambda: browser.count(".band-passed"))
        browser.press("h")
        heat = "const heat = document.getElementById('heat'); return heat.complete && heat.naturalWidth"
        assert browser.wait(lambda: browser.run(heat)) == 128
        browser.press("ESCAPE")
        browser.wait(lambda: any(face["kind"] == "final" for face in client.get("/api/faces").json["faces"]))
        browser.wait(
            lambda: browser.run("return [...document.querySelectorAll('.tile')].some(t => !t.querySelector('.inview'))")
        )
        assert browser.complaints() == []
        assert client.get("/readyz").status == 200

        # A browser that listens does not keep the service from stopping.
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        browser.wait(lambda: "lost" in browser.text("#link"))


def test_no_secret_of_an_address_is_told_to_anybody(camera: CameraProcess, tmp_path: Path) -> None:
    good = camera.url("stream", f"{USER}:{PASSWORD}@")
    wrong = camera.url("stream", f"{USER}:not-{PASSWORD}@") + "?token=s3cret-of-the-url"
    missing = camera.url("missing", f"{USER}:{quote(PASSWORD + '@/#', safe='')}@")
    with serving(tmp_path, f"door={good}", f"wrong={wrong}", f"missing={missing}", token=TOKEN) as (client, process):
        with closing(client.listen()) as listener:
            events = listener.events("face", "stream", "streams")
            told = []
            while not any(event["event"] == "face" for event in told) or not any(
                "404" in event["data"] for event in told
            ):
                told.append(next(events))
        texts = [event["data"] for event in told]
        face = client.get("/api/faces").json["faces"][0]
        path = f"/api/faces/{quote(face['key'])}"
        for name in ("/", "/login", "/healthz", "/readyz", "/metrics", "/api/streams", "/api/faces", path, f"{path}x"):
            answer = client.get(name)
            texts += [answer.body.decode(), str(answer.headers)]
        metrics = client.get("/metrics").body.decode()
        for name in (f"{path}/photo", f"{path}/heatmap"):
            texts.append(client.get(name).body.decode("latin-1"))
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        texts.append(process.stderr.read())
    told_of = (Path(__file__).resolve().parents[2] / "docs" / "http.md").read_text()
    families = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families(metrics)
    names = {family.name for family in families if family.name.startswith("streamgate_")}
    assert {"streamgate_output_bytes", "streamgate_frames"} <= names
    assert [name for name in sorted(names) if f"`{name}" not in told_of] == []
    assert "door" in texts[-1] and any("401" in text for text in texts)
    for secret in (PASSWORD, USER, "s3cret-of-the-url", TOKEN):
        assert not any(secret in text for text in texts), secret


@pytest.mark.parametrize(
    ("address", "code", "text"), [("0.0.0.0:0", 2, "STREAMGATE_TOKEN"), ("nonsense", 2, "HOST:PORT")]
)
def test_what_cannot_be_served_is_told_before_anything_starts(
    tmp_path: Path, address: str, code: int, text: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streamgate", "serve", "--rtsp", "rtsp://127.0.0.1:1/x", "--http", address,
         "--out", str(tmp_path / "out")],
        capture_output=True, text=True, timeout=120, env=os.environ | {"STREAMGATE_TOKEN": ""},
    )  # fmt: skip
    assert done.returncode == code and text in done.stderr and "Traceback" not in done.stderr


def test_a_port_in_use_is_told_with_exit_code_5(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "streamgate", "serve", "--rtsp", "rtsp://127.0.0.1:1/x",
             "--http", f"127.0.0.1:{taken.getsockname()[1]}", "--out", str(tmp_path / "out")],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 5 and "another port" in done.stderr and "Traceback" not in done.stderr
