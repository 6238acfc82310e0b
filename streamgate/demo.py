"""The clip that `streamgate demo` renders: a portrait that moves like a restless person in front of a camera.

The clip lasts 15 seconds at 25 fps, 1280 x 720. In the first scene, a head moves, turns in perspective, and becomes
blurred and dark, and a mirrored copy of the head enters next to it. After a cut, the same head is closer and in
different light, and then leaves the picture. The clip thus shows most of the conditions in which the gate rejects
faces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from streamgate.frames import Array

WIDTH, HEIGHT, FPS, SECONDS = 1280, 720, 25, 15
CUT_S = 9.0
"""Time of the cut from the first scene to the second."""
COPY_S = 5.6
"""Time when the mirrored copy starts to enter."""

_FACE = (225.0, 118.0)  # middle of the face in the portrait's 512 x 512 pixels
_FOCAL = 1100.0  # focal length of the virtual camera in pixels, so that turns show perspective
_FEATHER = 48  # pixels over which the portrait's border fades into the background
_THREADS = 2  # fixed, because the bytes that x264 writes depend on the number of threads


def write_demo_clip(path: Path, portrait: Array, *, seconds: float | None = None) -> None:
    """Render the clip into `path` (MP4, H.264); the same portrait gives the same bytes with the same encoder build.

    `portrait` is scikit-image's astronaut, RGB uint8 (512, 512, 3). If `seconds` is given, the clip ends
    after that time. Raises OSError.
    """
    import av

    count = None if seconds is None else max(1, round(seconds * FPS))

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"crf": "16", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.codec_context.thread_count = _THREADS
            for index, rgb in enumerate(islice(demo_frames(portrait), count)):
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, FPS)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def demo_frames(portrait: Array) -> Iterator[Array]:
    """The frames in order, RGB uint8 (720, 1280, 3)."""
    card = _card(portrait, 0)
    # Remove the sides of the copy, which would cover the first head.
    mirrored = np.ascontiguousarray(_card(portrait, 60)[:, ::-1])
    rooms = _room(portrait, (0.35, 0.45, 0.6), 20.0), _room(portrait[::-1, ::-1], (1.0, 0.85, 0.7), 90.0)
    for index in range(SECONDS * FPS):
        time = index / FPS
        frame = rooms[time >= CUT_S].copy()
        for homography, is_copy in _heads(time):
            _lay_over(frame, mirrored if is_copy else card, homography)
        sigma = 6.0 * _bump(time, 1.4, 3.0)
        if sigma > 0.3:
            frame = cv2.GaussianBlur(frame, (0, 0), sigma)
        light = 1.0 - 0.9 * _held(time, 3.8, 5.2)
        yield np.clip(frame * light, 0, 255).astype(np.uint8)


def _heads(time: float) -> list[tuple[Array, bool]]:
    """The heads visible at `time`, farthest first: each with its homography and whether it is the mirrored copy."""
    if time >= CUT_S:
        since = time - CUT_S
        away = max(0.0, since - 4.0) ** 2 * 260.0
        turn = 50.0 * _bump(since, 1.8, 4.2)
        x, roll = 640 + 40 * math.sin(1.3 * since) + away, 3 * math.sin(2 * since)
        return [(_homography(x, 330, 2.5 + 0.1 * since, turn, roll), False)]
    swing = math.sin(2 * math.pi * time / 6.0)
    y, turn = 320 + 14 * math.sin(2.1 * time), 38 * math.sin(1.1 * time)
    heads = [(_homography(420 + 90 * swing, y, 1.9, turn, 7 * swing), False)]
    if time >= COPY_S:
        near = min(1.0, (time - COPY_S) / 1.0)
        turn = 12 * math.sin(1.7 * time)
        heads.append((_homography(1420 - 480 * near, 330, 1.7, turn, -5 * swing, mirrored=True), True))
    return heads


def _homography(
    x: float, y: float, scale: float, turn_degrees: float, roll_degrees: float, *, mirrored: bool = False
) -> Array:
    """Homography (3, 3) from portrait pixels to frame pixels, for a flat picture in front of a pinhole camera.

    `x` and `y` are the position of the face in the frame.
    """
    face_x = 511.0 - _FACE[0] if mirrored else _FACE[0]
    turn, roll = math.radians(turn_degrees), math.radians(roll_degrees)
    about_y = np.array([[math.cos(turn), 0, math.sin(turn)], [0, 1, 0], [-math.sin(turn), 0, math.cos(turn)]])
    about_z = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    axes = (about_y @ about_z)[:, :2]
    pose = np.column_stack([axes, [0.0, 0.0, _FOCAL / scale]])
    camera = np.array([[_FOCAL, 0, x], [0, _FOCAL, y], [0, 0, 1]])
    to_middle = np.array([[1, 0, -face_x], [0, 1, -_FACE[1]], [0, 0, 1]])
    return np.asarray(camera @ pose @ to_middle, np.float64)


def _card(portrait: Array, narrower: int) -> Array:
    """The portrait as float32 RGBA (512, 512, 4), colours 0..255 and alpha 0..1, opaque except for its border.

    `narrower` pixels on the left and twice as many on the right are transparent; the person is not visible there.
    """
    height, width = portrait.shape[:2]
    down = np.minimum(np.arange(height), np.arange(height)[::-1])[:, None]
    across = np.minimum(np.arange(width) - narrower, np.arange(width)[::-1] - 2 * narrower)[None, :]
    alpha = np.clip(np.minimum(down, across) / _FEATHER, 0.0, 1.0)
    return np.dstack([portrait.astype(np.float32), (alpha * alpha * (3 - 2 * alpha)).astype(np.float32)])


def _room(portrait: Array, tint: tuple[float, float, float], level: float) -> Array:
    """A background: the portrait blurred beyond recognition and tinted, float32 (720, 1280, 3), 0..255."""
    soft = cv2.GaussianBlur(cv2.resize(portrait, (WIDTH, HEIGHT)), (0, 0), 90).astype(np.float32)
    return np.clip(0.6 * soft * np.array(tint, np.float32) + level, 0, 255).astype(np.float32)


def _lay_over(frame: Array, card: Array, homography: Array) -> None:
    over = cv2.warpPerspective(card, homography, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
    alpha = np.clip(over[..., 3:], 0.0, 1.0)
    frame += (np.clip(over[..., :3], 0, 255) - frame) * alpha


def _held(time: float, begin: float, end: float) -> float:
    """1 from `begin` to `end` and 0 outside, with short ramps, like a lamp that is switched on and off."""
    return min(1.0, max(0.0, min(time - begin, end - time) / 0.12 + 0.5))


def _bump(time: float, begin: float, end: float) -> float:
    """0 outside `begin`..`end`, with a smooth rise to 1 in the middle."""
    if not begin < time < end:
        return 0.0
    return math.sin(math.pi * (time - begin) / (end - begin)) ** 2
