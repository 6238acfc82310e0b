"""Small synthetic clips and frames for tests, made with PyAV from scikit-image's astronaut.

The astronaut's face lies at about (180, 60)-(270, 175) of the 512 x 512 picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av import VideoFrame
from av.filter import Graph

MATRIX_CODES = {"bt709": 1, "bt601": 6, "bt2020": 9}
_BICUBIC, _ACCURATE_RND = 4, 0x40000
_SWS_MATRICES = {"bt709": 1, "bt601": 5, "bt2020": 9}


def astronaut(width: int = 512, height: int = 512) -> np.ndarray:
    """The picture, RGB uint8 (height, width, 3), scaled to cover the size and cut from the top centre."""
    from skimage import data

    picture = np.ascontiguousarray(data.astronaut())
    scale = max(width / picture.shape[1], height / picture.shape[0])
    size = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture = cv2.resize(picture, size, interpolation=how)
    left = (size[0] - width) // 2
    return np.ascontiguousarray(picture[:height, left : left + width])


def astronaut_frames(
    count: int, size: tuple[int, int] = (320, 240), *, step: float = 2.0, zoom: float = 1.0
) -> list[np.ndarray]:
    """`count` RGB frames of `size` (width, height): the astronaut drifting right by `step` pixels a frame.

    With `zoom` 1 the 512-pixel picture is as wide as the frame.
    """
    picture = astronaut()
    scale = zoom * size[0] / picture.shape[1]
    frames = []
    for index in range(count):
        matrix = np.array([[scale, 0.0, index * step - count * step / 2], [0.0, scale, 0.0]])
        frames.append(cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REFLECT))
    return frames


def plain_frames(
    count: int, size: tuple[int, int] = (320, 240), colour: Sequence[int] = (90, 120, 60)
) -> list[np.ndarray]:
    """`count` frames of one colour, as the far side of a cut."""
    return [np.full((size[1], size[0], 3), colour, np.uint8) for _ in range(count)]


def make_frame(
    rgb: np.ndarray, pix_fmt: str = "yuv420p", *, matrix: str = "bt601", full_range: bool = False
) -> VideoFrame:
    """A decoder-like frame of `rgb` in `pix_fmt`, tagged with its matrix and range; chroma is sited left."""
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)
    )
    scale = graph.add(
        "scale",
        f"out_color_matrix={matrix}:out_range={'pc' if full_range else 'tv'}:out_chroma_loc=left:"
        "flags=bicubic+accurate_rnd+full_chroma_inp",
    )
    form = graph.add("format", f"pix_fmts={pix_fmt}")
    sink = graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(form)
    form.link_to(sink)
    graph.configure()
    graph.vpush(frame)
    made = graph.vpull()
    if not made.format.is_rgb:
        made.colorspace = MATRIX_CODES[matrix]
        made.color_range = 2 if full_range else 1
    return made


def write_clip(
    path: Path | str,
    frames_rgb: Iterable[np.ndarray],
    *,
    fps: float | Fraction = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sar: Fraction | None = None,
    rotation: int = 0,
    hflip: bool = False,
    vflip: bool = False,
    interlaced: bool = False,
    matrix: str | None = None,
    full_range: bool = False,
    transfer: int | None = None,
    primaries: int | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    audio: float = 0.0,
    movflags: str | None = None,
    form: str | None = None,
) -> Path:
    """Write RGB uint8 frames as a video; the container follows from the suffix of `path`.

    Args:
        rotation: the display matrix turns the stored picture by so many degrees clockwise to be upright.
        hflip, vflip: the display matrix mirrors.
        matrix: "bt601", "bt709", "bt2020"; None leaves the stream untagged (the samples are BT.601).
        pts: presentation times in `time_base` units, one a frame.
        audio: seconds of silence to add.
        movflags: of the MP4 writer, for example "faststart" for an index in front.
        form: FFmpeg's name of the container, where the suffix does not tell.
    """
    path = Path(path)
    rate = Fraction(fps).limit_denominator(1001)
    settings: dict[str, str] = dict(options or {})
    if codec == "libx264":
        settings.setdefault("crf", "12")
        settings.setdefault("preset", "ultrafast")
    if codec == "libx264" and interlaced:
        settings["x264-params"] = "interlaced=1"
    settings_of_form = {"movflags": movflags} if movflags else {}
    with av.open(str(path), "w", format=form, container_options=settings_of_form) as container:
        stream: Any = None
        sound: Any = None
        for index, rgb in enumerate(frames_rgb):
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=settings)
                stream.width, stream.height, stream.pix_fmt = rgb.shape[1], rgb.shape[0], pix_fmt
                if time_base is not None:
                    stream.codec_context.time_base = time_base
                if sar is not None:
                    stream.codec_context.sample_aspect_ratio = sar
                if rotation or hflip or vflip:
                    if not hasattr(stream, "set_display_rotation"):
                        pytest.skip("this version of PyAV cannot write a display rotation (17.1 and newer can)")
                    # FFmpeg counts anticlockwise.
                    stream.set_display_rotation(-rotation, hflip=hflip, vflip=vflip)
                context = stream.codec_context
                if matrix is not None:
                    context.colorspace = MATRIX_CODES[matrix]
                    context.color_range = 2 if full_range else 1
                if transfer is not None:
                    context.color_trc = transfer
                if primaries is not None:
                    context.color_primaries = primaries
                if audio:
                    sound = container.add_stream("aac", rate=48000)
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame = frame.reformat(
                format=pix_fmt,
                dst_colorspace=_SWS_MATRICES[matrix or "bt601"],
                dst_color_range=2 if full_range else 1,
                interpolation=_BICUBIC | _ACCURATE_RND,
            )
            if interlaced:
                # PyAV has no setter for the flag; the filter sets it.
                frame = _flag_interlaced(frame, Fraction(1, 1) / rate)
            frame.pts = index if pts is None else pts[index]
            frame.time_base = Fraction(1, 1) / rate if time_base is None else time_base
            container.mux(stream.encode(frame))
        if stream is None:
            raise ValueError("a clip needs at least one frame")
        container.mux(stream.encode())
        if sound is not None:
            _add_silence(container, sound, audio)
    return path


def write_audio(path: Path | str) -> Path:
    """Write one second of silence, without pictures."""
    with av.open(str(path), "w") as container:
        _add_silence(container, container.add_stream("aac", rate=48000))
    return Path(path)


def _add_silence(container: Any, stream: Any, seconds: float = 1.0) -> None:
    for index in range(int(seconds * 48000 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48000, index * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _flag_interlaced(frame: VideoFrame, time_base: Fraction) -> VideoFrame:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=time_base
    )
    field = graph.add("setfield", "mode=tff")
    sink = graph.add("buffersink")
    source.link_to(field)
    field.link_to(sink)
    graph.configure()
    graph.vpush(frame)
    return graph.vpull()
