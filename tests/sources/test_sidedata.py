"""Pictures come upright and one eye at a time, by what is written beside the pixels; what nobody knows harms nobody."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from streamgate.sources import open_source
from support.media import astronaut, astronaut_frames, write_clip

SIZE = (160, 120)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def jpeg_with_exif(rgb: np.ndarray, orientation: int) -> bytes:
    """`rgb` as a JPEG whose EXIF says that orientation."""
    plain = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 0)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]


def write_mjpeg(path: Path, pictures: Sequence[bytes], size: tuple[int, int]) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
        for index, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = index
            packet.is_keyframe = True
            container.mux(packet)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed_in_mjpeg(tmp_path: Path, orientation: int) -> None:
    stored = astronaut(*SIZE)
    picture = jpeg_with_exif(stored, orientation)
    wanted = cv2.cvtColor(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    path = write_mjpeg(tmp_path / "camera.mov", [picture] * 3, SIZE)
    with open_source(path) as source:
        shown = [frame.warp(np.eye(2, 3), (frame.width, frame.height)) for frame in source.frames()]
        assert (source.height, source.width) == wanted.shape[:2]
    assert len(shown) == 3 and max(difference(one, wanted) for one in shown) < 3


def stereo_pair(left: np.ndarray, right: np.ndarray, *, across: bool, squeezed: bool) -> np.ndarray:
    pair = np.hstack([left, right]) if across else np.vstack([left, right])
    if squeezed:
        pair = cv2.resize(pair, (left.shape[1], left.shape[0]), interpolation=cv2.INTER_AREA)
    return pair


@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize("across, packing", [(True, 3), (False, 4)])
def test_of_a_stereo_pair_one_eye_is_used(tmp_path: Path, across: bool, packing: int, squeezed: bool) -> None:
    size = (256, 144)
    left, right = astronaut_frames(4, size), [np.full((144, 256, 3), 90, np.uint8)] * 4
    pairs = [stereo_pair(a, b, across=across, squeezed=squeezed) for a, b in zip(left, right, strict=True)]
    path = write_clip(tmp_path / "pair.mp4", pairs, options={"x264-params": f"frame-packing={packing}"})
    with open_source(path) as source:
        assert (source.width, source.height) == size
        for frame, wanted in zip(source.frames(), left, strict=True):
            assert difference(frame.warp(np.eye(2, 3), size), wanted) < 8


def test_a_pair_in_pixels_that_are_not_square_is_not_stretched_twice(tmp_path: Path) -> None:
    left = astronaut_frames(3, (256, 144))
    pairs = [stereo_pair(one, one, across=True, squeezed=True) for one in left]
    options = {"x264-params": "frame-packing=3"}
    path = write_clip(tmp_path / "pair.mp4", pairs, sar=Fraction(2), options=options)
    with open_source(path) as source:
        assert (source.width, source.height) == (256, 144)


# Files that went wrong.


def test_case_unknown_side_data_ends_no_source(shared_case: Callable[[str], Path]) -> None:
    for name, count in (("exif_mjpeg.mov", 50), ("fate_multiview_spatial.mp4", 11)):
        with open_source(shared_case(name)) as source:
            assert sum(1 for _ in source.frames()) == count and source.stats.decode_errors == 0


def test_case_one_eye_of_a_matroska_pair(shared_case: Callable[[str], Path]) -> None:
    with open_source(shared_case("sbs3d.mkv")) as source:
        assert (source.width, source.height) == (960, 540)
