"""A state with real faces on its wall, and a server over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from streamgate.config import load_config
from streamgate.engine import Engine
from streamgate.service.http import serving
from streamgate.service.state import LatestFace, ServiceState, StreamState
from support.client import Client
from support.live_wall import show_clips
from support.media import astronaut_frames, plain_frames, write_clip
from support.real_weights import standard_models
from support.redis_server import start_redis  # noqa: F401
from support.rtsp_server import start_camera  # noqa: F401
from support.sink_values import make  # noqa: F401

Serve = Callable[..., Client]


@pytest.fixture(scope="session")
def real_faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[LatestFace, ...]:
    """Faces as the gate keeps them from two clips, oldest first: a face each shot, a still camera and a moving one."""
    folder = tmp_path_factory.mktemp("wall")
    near = astronaut_frames(30, (640, 480), step=1.0, zoom=1.6)
    entrance = write_clip(folder / "entrance.mp4", [*near, *plain_frames(50, (640, 480)), *near[::-1]])
    hall = write_clip(folder / "hall.mp4", astronaut_frames(40, (640, 480), step=3.0, zoom=1.3))
    state = ServiceState()
    with Engine(load_config("live"), models=f"{standard_models()},embedded", device="cpu") as engine:
        show_clips(state, [entrance, hall], engine)
    faces = tuple(reversed(state.faces()))
    assert len(faces) == 3 and all(face.heatmap and face.series for face in faces)
    return faces


@pytest.fixture
def state(real_faces: tuple[LatestFace, ...]) -> ServiceState:
    """Two cameras that run, one that is refused, and real faces."""
    state = ServiceState()
    state.note(models_loaded=True)
    for name in ("entrance", "hall"):
        state.add_stream(
            name, f"rtsp://***@10.0.0.7/{name}",
            state=StreamState.RUNNING, fps=24.96, frames_in=1000, connects=1, width=640, height=480,
        )  # fmt: skip
    state.add_stream(
        "dock", "rtsp://***@10.0.0.8/main",
        state=StreamState.FAILED, error="401: the camera refuses the user name or password",
    )  # fmt: skip
    for face in real_faces:
        state.show(face)
    return state


@pytest.fixture
def serve(state: ServiceState) -> Iterator[Serve]:
    """Starts a server over the state (`host`, `token`); gives a client of it."""
    pytest.importorskip("fastapi", reason="the HTTP side needs the serve extra")
    with ExitStack() as running:

        def start(host: str = "127.0.0.1", token: str | None = None) -> Client:
            return Client(running.enter_context(serving(state, f"{host}:0", token or "")), token)

        yield start
