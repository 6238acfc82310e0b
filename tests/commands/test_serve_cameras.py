"""`streamgate serve` and cameras whose pictures are an attack."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.hostile import high_water
from support.hostile_cameras import HOSTILE_CAMERAS, HostileCamera, hostile_camera
from support.rtsp_server import CameraProcess
from support.serve_process import serving

MIB = 350
"""A service of two small streams takes half of it; one picture of 16,384 x 9,216 px would take 220 more."""


@pytest.mark.parametrize("attack", HOSTILE_CAMERAS, ids=lambda attack: attack.what)
def test_a_hostile_camera_costs_neither_memory_nor_the_other_cameras(
    start_camera: Callable[..., CameraProcess], tmp_path: Path, attack: HostileCamera
):
    camera = hostile_camera(start_camera, tmp_path)
    hostile = f"door={attack.url(camera, tmp_path)}"
    arguments = ("--rtsp", hostile, "--rtsp", f"hall={camera.url()}", "--out", "out", "--http", "127.0.0.1:0")
    with serving(tmp_path, *arguments) as service:
        if attack.words:
            service.until(lambda: re.search(attack.words, service.said()), "the words about it")
        else:
            service.until(lambda: service.stream("door")["frames_in_error"] > 20, "its errors")
            assert service.stream("door")["frames_in"] > 0
        seen = service.stream("hall")["frames_in"]
        service.until(lambda: service.stream("hall")["frames_in"] > seen + 25, "the other camera")
        assert high_water(service.process.pid) < MIB
        assert service.end() == 0
