"""Renders clips whose frames differ from the source (a square that follows the face, or another frame rate)."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from streamgate.clips.cutting import ENCODER, THREADS, TICKS, audio_of, finish, opened, writing
from streamgate.clips.frame_scoring import ScoredFrame
from streamgate.clips.recipe import ClipPicture
from streamgate.clips.windows import Window
from streamgate.errors import SourceError
from streamgate.frames import Array, Frame
from streamgate.sources.file import VideoFile

RATE = 16_000
"""Sample rate of a clip's WAV file in Hz."""
_POSITION_S, _SIDE_S = 0.15, 0.5
"""Standard deviations, in seconds, for smoothing the position and the side of a square over time, so that the square
follows the head but not its jitter."""
_BT709 = 1


@dataclass(frozen=True, slots=True)
class RenderedFrame:
    """A written frame: its time in the clip, the time of the source frame, and the part of that frame that is shown.

    `box` is this part, [x1, y1, x2, y2] in source pixels.
    """

    pts_seconds: float
    source_pts: float
    box: Array


Square = Callable[[float], Array]
"""The part [x1, y1, x2, y2] of the source to show at a time, in pixels."""


def face_square(frames: Sequence[ScoredFrame], margin: float, width: int, height: int) -> Square:
    """A square that smoothly follows the face in `frames` and stays inside the picture if there is room."""
    there = [one for one in frames if one.face is not None]
    if not there:
        raise SourceError("no frame of the clip shows the face")
    times = np.array([one.pts_seconds for one in there])
    boxes = np.stack([one.face.box for one in there if one.face is not None]).astype(np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) * (1 + 2 * margin)
    side = np.minimum(_smooth(times, sides, _SIDE_S), min(width, height))
    position = _smooth(times, centres, _POSITION_S)
    half = side[:, None] / 2
    position = np.clip(position, half, np.maximum(half, np.array([width, height]) - half))
    columns = np.column_stack([position - half, position + half]).T
    return lambda pts_seconds: np.array([np.interp(pts_seconds, times, column) for column in columns])


def _smooth(times: Array, values: Array, sigma: float) -> Array:
    """Values (N,) or (N, D), smoothed over time with a Gaussian."""
    weights = np.exp(-0.5 * ((times[:, None] - times[None, :]) / sigma) ** 2)
    return np.asarray(weights @ values / weights.sum(axis=1).reshape(-1, *[1] * (values.ndim - 1)))


def render(
    source: VideoFile,
    target: Path,
    window: Window,
    picture: ClipPicture,
    square: Square | None,
    *,
    sound: bool = True,
) -> list[RenderedFrame]:
    """Write the frames of the window (H.264, BT.709, upright, square pixels) and, with `sound`, the window's audio.

    With `picture.fps`, the frame nearest to each output time is used; otherwise, all frames are used at their own
    times. Returns the written frames. Raises SourceError and OSError.
    """
    container, stream = opened(source)
    shown: list[RenderedFrame] = []
    with closing(container), writing(target) as out:
        audio = audio_of(container) if sound else None
        audio_out = out.add_stream_from_template(audio) if audio else None
        video_out: Any = None
        for time, (source_pts, box), pixels in _timed(_cut(source, window, picture, square), picture.fps, window):
            if video_out is None:
                rate = Fraction(picture.fps).limit_denominator(1001) if picture.fps else stream.average_rate
                video_out = out.add_stream("libx264", rate=rate or 25, options=ENCODER)
                video_out.height, video_out.width = pixels.shape[:2]
                video_out.pix_fmt = "yuv420p"
                context = video_out.codec_context
                context.time_base, context.thread_count = TICKS, THREADS
                context.colorspace = context.color_primaries = context.color_trc = _BT709
                context.color_range = ColorRange.MPEG
            made = VideoFrame.from_ndarray(pixels, "rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            made.pts, made.time_base = round(time / TICKS), TICKS
            out.mux(video_out.encode(made))
            shown.append(RenderedFrame(time, source_pts, box))
        finish(out, source, window, video_out, audio_out)
    return shown


def _cut(
    source: VideoFile, window: Window, picture: ClipPicture, square: Square | None
) -> Iterator[tuple[float, Array, Array]]:
    """Yield for each frame its time in the source, the box that is shown, and the RGB pixels of that box."""
    with closing(source.frames_from(window.start)) as frames:
        for frame in frames:
            if frame.pts_seconds >= window.end - 1e-9:
                return
            yield frame.pts_seconds, *_pixels(frame, picture, square)
            del frame


def _pixels(frame: Frame, picture: ClipPicture, square: Square | None) -> tuple[Array, Array]:
    if square is None:
        width, height = frame.width // 2 * 2, frame.height // 2 * 2
        whole = np.array([[1.0, 0, 0], [0, 1.0, 0]])
        return np.array([0.0, 0.0, width, height]), frame.warp(whole, (width, height))
    box = square(frame.pts_seconds)
    return box, frame.warp(square_matrix(box, picture.size), picture.size, fine=True)


def square_matrix(box: Array, size: int) -> Array:
    """Matrix (2, 3) from source pixels to pixels of the square picture of `size`."""
    scale = size / max(1.0, float(box[2] - box[0]))
    # Pixel centres have integer coordinates, so the corner of the square is half a pixel before the first centre.
    offset = (0.5 - box[:2]) * scale - 0.5
    return np.array([[scale, 0.0, offset[0]], [0.0, scale, offset[1]]])


def _timed(
    frames: Iterator[tuple[float, Array, Array]], fps: float, window: Window
) -> Iterator[tuple[float, tuple[float, Array], Array]]:
    """Yield (time in the clip, (source time, box), pixels) for each frame or, with `fps`, for the frame nearest to each
    output time."""
    if not fps:
        for pts, box, pixels in frames:
            yield pts - window.start, (pts, box), pixels
        return
    before: tuple[float, Array, Array] | None = None
    count = 0
    for now in frames:
        # The previous frame is used while it is nearer to the output time.
        while before is not None and (before[0] + now[0]) / 2 - window.start > count / fps:
            yield count / fps, before[:2], before[2]
            count += 1
        before = now
    total = round((window.end - window.start) * fps)
    while before is not None and count < total:
        yield count / fps, before[:2], before[2]
        count += 1


def write_wav(source: VideoFile, target: Path, window: Window) -> bool:
    """Write the sound of the window as WAV: 16 kHz, mono, 16 bits, as long as the window.

    Gaps in the recording become silence. Returns whether the source has sound. Raises SourceError and OSError.
    """
    samples = np.zeros(round((window.end - window.start) * RATE), np.int16)
    container, _ = opened(source)
    with closing(container):
        audio = audio_of(container)
        if audio is None:
            return False
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        try:
            container.seek(max(0, int((window.start - 0.5) / audio.time_base)), stream=audio, backward=True)
            first: float | None = None
            count = 0
            for frame in container.decode(audio):
                if frame.pts is None:
                    continue
                time = float(frame.pts * frame.time_base)
                if time >= window.end:
                    break
                if first is None:
                    first = time
                for piece in resampler.resample(frame):
                    # The position is found by counting samples, because audio times in containers are rounded.
                    begin = round((first - window.start) * RATE) + count
                    count += piece.samples
                    _insert(samples, begin, piece.to_ndarray().reshape(-1))
        except (av.error.FFmpegError, OSError):
            pass  # samples without sound stay zero
    with wave.open(str(target), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return True


def _insert(samples: Array, begin: int, piece: Array) -> None:
    """Write a piece at its position, clipped to the range of `samples`."""
    low, high = max(0, begin), min(len(samples), begin + len(piece))
    if low < high:
        samples[low:high] = piece[low - begin : high - begin]
