"""Cameras whose pictures no service should decode, or cannot. Shared by tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from support.hostile_giants import giant_h264
from support.hostile_videos import TINY_INTERLACED
from support.media import plain_frames, write_clip
from support.rtsp_server import CameraProcess


@dataclass(frozen=True)
class HostileCamera:
    """One camera.

    Attributes:
        what: for people.
        url: where it is, given the camera of `hostile_camera` and a spare folder.
        words: what the service says of it (a regular expression); "" where it goes on and errors are counted.
    """

    what: str
    url: Callable[[CameraProcess, Path], object]
    words: str = ""


LARGE = r"live\.max_pixels"
HOSTILE_CAMERAS = (
    HostileCamera("pictures of 16,384 x 9,216 px from the start", lambda camera, _: camera.url("stream1"), LARGE),
    HostileCamera("pictures that grow to 16,384 x 9,216 px and shrink again", lambda camera, _: camera.url("change")),
    HostileCamera("some bytes of the pictures changed", lambda camera, _: camera.url("noise")),
    HostileCamera("random bytes for pictures", lambda camera, _: camera.url("rubbish"),
                  "can be decoded|a supported codec"),
    HostileCamera("interlaced pictures of 16 x 2 px, as damage makes them",
                  lambda _, folder: TINY_INTERLACED.put(folder), "closed the connection"),
)  # fmt: skip


def hostile_camera(start: Callable[..., CameraProcess], folder: Path) -> CameraProcess:
    """A camera with a clip of 320 x 240 (`stream`) and one whose pictures claim 16,384 x 9,216 (`stream1`)."""
    small = write_clip(folder / "small.mp4", plain_frames(30, (320, 240)), options={"g": "10"})
    giant_h264(folder / "giant.h264")
    return start(small, _timed(folder / "giant.h264", folder / "giant.mkv"))


def _timed(source: Path, target: Path) -> Path:
    """A raw H.264 stream in a container, with times. Nothing is decoded."""
    with av.open(str(source), options={"max_pixels": "1000000"}) as given, av.open(str(target), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for index, packet in enumerate(given.demux(video=0)):
            if packet.size:
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                packet.pts = packet.dts = index
                made.mux(packet)
    return target
