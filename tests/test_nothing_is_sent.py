"""No command looks up a name or leaves a trace for a vendor: libraries that report home are kept from it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.cut_network import looked_up
from support.media import astronaut_frames, write_clip

PYTHON = [sys.executable, "-m", "streamgate"]
WATCHED_S = 25
"""ONNX Runtime's telemetry looks up its host within so many seconds of the first session where nothing stops it."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """As a user who has set nothing, with a home that shows what is left behind."""
    home = tmp_path / "home"
    home.mkdir()
    inherited = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key and "XDG" not in key}
    return inherited | {"HOME": str(home)}


def test_commands_look_up_no_name_and_leave_nothing_in_the_home(tmp_path: Path, environment: dict[str, str]) -> None:
    pytest.importorskip("fastapi", reason="the service's page needs fastapi")
    frames = list(astronaut_frames(25, (320, 240), zoom=1.6))
    clip, picture = tmp_path / "clip.mp4", tmp_path / "picture.png"
    write_clip(clip, frames)
    cv2.imwrite(str(picture), np.ascontiguousarray(frames[0][..., ::-1]))
    serve = ["serve", "--rtsp", f"camera=file://{clip}", "--out", str(tmp_path / "live"), "--http", "127.0.0.1:8099"]
    outcome = looked_up(
        [
            [*PYTHON, "models", "list"],
            [*PYTHON, "score", str(picture)],
            [*PYTHON, "run", str(clip), "-o", str(tmp_path / "out"), "--jobs", "2"],
            ["timeout", "--signal=TERM", "--preserve-status", str(WATCHED_S), *PYTHON, *serve],
        ],
        environment,
    )
    assert outcome.codes == [0, 0, 0, 0], outcome.errors
    assert (tmp_path / "out" / "faces.jsonl").stat().st_size > 0
    assert outcome.names == []
    assert list(Path(environment["HOME"]).rglob("*")) == []


def test_a_name_that_is_looked_up_is_counted(environment: dict[str, str]) -> None:
    look = "import socket\ntry:\n socket.getaddrinfo('example.invalid', 80)\nexcept OSError:\n pass"
    assert set(looked_up([[sys.executable, "-c", look]], environment).names) == {"example.invalid"}
