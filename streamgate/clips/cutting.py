"""Cuts a time window from a video file: re-encodes it with frame accuracy, or copies it, starting at a key frame."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av import VideoFrame
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from streamgate.clips.windows import Window
from streamgate.errors import SourceError
from streamgate.sources.container import open_video
from streamgate.sources.file import VideoFile
from streamgate.sources.file_reader import NO_TIMES
from streamgate.sources.orientation import UNTURNED, Turn, turned
from streamgate.sources.side_data import Eye, shown_turn, used_eye

_IN_MP4 = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4", "aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
"""Codecs that players expect in MP4; all others are written to Matroska."""
_ENCODABLE = frozenset(
    {"yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"}
)
ENCODER = {"crf": "14", "preset": "medium"}
THREADS = 2  # fixed, because the bytes that x264 writes depend on the number of threads
TICKS = Fraction(1, 90_000)
_EARLIER_S = (0.0, 1.0, 10.0)
"""How far before a window to seek, in seconds. The values are tried in order until the window's key frame is found."""


def suffix_for(source: VideoFile, *, copy: bool, sound: bool = True) -> str:
    """`.mp4`, or `.mkv` for codecs that do not belong in MP4. Raises SourceError."""
    container, stream = opened(source)
    with closing(container):
        audio = audio_of(container) if sound else None
        codecs = {*({stream.codec_context.name} if copy else ()), *({audio.codec_context.name} if audio else ())}
        return ".mp4" if codecs <= _IN_MP4 else ".mkv"


def copyable_windows(source: VideoFile, seconds: float) -> list[Window]:
    """Windows of at least `seconds` that can be copied, one per key frame, in order of time.

    A window can only end between two packets if every earlier packet in the file is shown before every later one. The
    list is empty if packets have no presentation times or the clock restarts. Raises SourceError.
    """
    container, stream = opened(source)
    base = stream.time_base or Fraction(1, 1000)
    guessed = container.format.name in NO_TIMES
    times: list[float] = []
    keys: list[int] = []
    last = None
    with closing(container):
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.pts is None or (guessed and packet.pts != packet.dts):
                    return []
                if packet.dts is not None and last is not None and packet.dts < last:
                    return []
                last = packet.dts
                if packet.is_keyframe:
                    keys.append(len(times))
                times.append(float(packet.pts * base))
        except (av.error.FFmpegError, OSError):
            pass  # use the packets that were read before the error
    if not times:
        return []
    latest_so_far = np.maximum.accumulate(times)
    earliest_to_come = np.append(np.minimum.accumulate(times[::-1])[::-1], np.inf)
    # The duration of the last frame is unknown, so no window ends after the last packet.
    ends = [times_to_come for index, times_to_come in enumerate(earliest_to_come[1:-1].tolist())
            if latest_so_far[index] < times_to_come]  # fmt: skip
    windows = []
    for index in keys:
        following = bisect_left(ends, times[index] + seconds - 1e-9)
        if following < len(ends):
            windows.append(Window(times[index], ends[following]))
    return sorted(windows, key=lambda window: window.start)


def copy_window(source: VideoFile, target: Path, window: Window, *, sound: bool = True) -> int:
    """Copy the video packets of `window` (one of `copyable_windows`) and, with `sound`, the audio packets.

    Returns the number of frames.

    Raises SourceError and OSError.
    """
    container, stream = opened(source)
    with closing(container), writing(target) as out:
        audio = audio_of(container) if sound else None
        video_out = out.add_stream_from_template(stream)
        video_out.time_base = stream.time_base
        if source.turned:
            with closing(source.decoded_from(window.start)) as frames:
                _, first = next(frames)
            _show_turned(video_out, turned(shown_turn(first), source.turned))
        audio_out = out.add_stream_from_template(audio) if audio else None
        count = 0
        for packet in packets_of(source, window, video=True, sound=sound):
            count += packet.stream.type == "video"
            packet.stream = video_out if packet.stream.type == "video" else audio_out
            out.mux(packet)
        return count


def encode_window(source: VideoFile, target: Path, window: Window, *, sound: bool = True) -> int:
    """Re-encode the frames of `window` as H.264 and, with `sound`, copy the audio packets.

    Rotation, pixel aspect and colours stay as stored. For stereo video, only the view that the run used is written. If
    the clock of the source restarts before the window, the matching sound is unknown and is left out. Returns the
    number of frames. Raises SourceError and OSError.
    """
    container, stream = opened(source)
    with closing(container), writing(target) as out:
        audio = audio_of(container) if sound else None
        audio_out = out.add_stream_from_template(audio) if audio else None
        video_out: Any = None
        reformatter = VideoReformatter()
        count = 0
        silent = False
        with closing(source.decoded_from(window.start)) as frames:
            for time, frame in frames:
                if time.pts_seconds >= window.end - 1e-9:
                    break
                if video_out is None:
                    turn, eye = turned(shown_turn(frame), source.turned), used_eye(frame, stream.sample_aspect_ratio)
                    graph = None if eye is None else _cutting_out(frame, eye)
                    video_out, silent = _encoder(out, stream, frame, turn, eye), time.estimated
                if graph is not None:
                    graph.vpush(frame)
                    frame = graph.vpull()
                form = video_out.codec_context.format.name
                if frame.format.name != form or (frame.width, frame.height) != (video_out.width, video_out.height):
                    frame = reformatter.reformat(frame, width=video_out.width, height=video_out.height, format=form)
                frame.pict_type = 0  # so that the encoder chooses its own key frames
                frame.pts, frame.time_base = round((time.pts_seconds - window.start) / TICKS), TICKS
                out.mux(video_out.encode(frame))
                count += 1
                del frame
        finish(out, source, window, video_out, None if silent else audio_out)
        return count


def finish(out: Any, source: VideoFile, window: Window, video_out: Any, audio_out: Any) -> None:
    """Flush `video_out` and add the sound of the window, if there is an `audio_out`.

    Raises SourceError if `video_out` is None, because there was no frame.
    """
    if video_out is None:
        between = f"{window.start:g} and {window.end:g} s"
        raise SourceError(f"{source.location}: no frame between {between} could be read again; check the file")
    out.mux(video_out.encode())
    for packet in packets_of(source, window, video=False) if audio_out is not None else ():
        packet.stream = audio_out
        out.mux(packet)


def _cutting_out(frame: VideoFrame, eye: Eye) -> Graph:
    """A filter that cuts the used half out of stereo frames like `frame`."""
    graph = Graph()
    last = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or TICKS
    )
    width, height = eye.size(frame.width, frame.height)
    for each in (graph.add("crop", f"{width}:{height}:0:0:exact=1"), graph.add("buffersink")):
        last.link_to(each)
        last = each
    graph.configure()
    return graph


def packets_of(source: VideoFile, window: Window, *, video: bool, sound: bool = True) -> Iterator[Any]:
    """Yield the audio packets inside the window and, with `video`, the video packets from the key frame at its start.

    The times of the packets are shifted so that the window begins at 0.
    """
    for earlier in (*_EARLIER_S, None):
        container, stream = opened(source)
        with closing(container):
            streams = (stream if video else None, audio_of(container) if sound else None)
            wanted = [one for one in streams if one is not None]
            lead = wanted[0]
            if earlier is not None:
                begin = math.floor(max(0.0, window.start - earlier) / (lead.time_base or Fraction(1, 1000)))
                container.seek(begin, stream=lead, backward=True)
            packets = _inside(container.demux(*wanted), window, wanted)
            if earlier is None:
                yield from packets
                return
            first = next(packets, None)
            # If the file has no index, the seek may have ended after the key frame.
            if first is None or (video and not (first.stream.type == "video" and first.is_keyframe)):
                continue
            yield first
            yield from packets
            return


def _inside(packets: Iterator[Any], window: Window, wanted: Sequence[Any]) -> Iterator[Any]:
    done: set[int] = set()
    for packet in packets:
        if packet.size == 0 or packet.pts is None:
            continue
        base = packet.time_base
        time = float(packet.pts * base)
        if packet.dts is not None and float(packet.dts * base) >= window.end:
            done.add(packet.stream.index)
            if len(done) == len(wanted):
                return
        # Frames that follow the key frame in the file but are shown before it are not copied.
        if not window.start - 1e-6 <= time < window.end - 1e-9:
            continue
        shift = round(window.start / base)
        packet.pts -= shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        yield packet


def opened(source: VideoFile) -> tuple[InputContainer, VideoStream]:
    """Open the file again to read its packets. Raises SourceError."""
    return open_video(source.path, source.location, 1)


def _encoder(out: OutputContainer, stream: VideoStream, frame: VideoFrame, turn: Turn, eye: Eye | None) -> Any:
    """Add an H.264 stream for frames like `frame`; if `eye` is given, for this half of each stereo frame."""
    made: Any = out.add_stream(
        "libx264", rate=stream.average_rate or stream.guessed_rate or 25, options=ENCODER
    )
    width, height = (frame.width, frame.height) if eye is None else eye.size(frame.width, frame.height)
    even = frame.format.name in _ENCODABLE and "444" in frame.format.name
    made.width = width if even else width // 2 * 2
    made.height = height if even else height // 2 * 2
    made.pix_fmt = frame.format.name if frame.format.name in _ENCODABLE else "yuv420p"
    context, stored = made.codec_context, stream.codec_context
    context.time_base = TICKS
    context.thread_count = THREADS
    aspect = stream.sample_aspect_ratio if eye is None else eye.aspect(stream.sample_aspect_ratio)
    if aspect:
        context.sample_aspect_ratio = aspect
    if not frame.format.is_rgb:
        context.colorspace, context.color_range = stored.colorspace, stored.color_range
        context.color_primaries, context.color_trc = stored.color_primaries, stored.color_trc
    if turn != UNTURNED:
        _show_turned(made, turn)
    return made


def _show_turned(made: Any, turn: Turn) -> None:
    """Store in an output stream how players must rotate its frames."""
    if not hasattr(made, "set_display_rotation"):
        raise SourceError("clips of rotated video need a newer PyAV: pip install 'av>=17.1,<20'")
    rotation, hflip = _rotation_of(turn)
    made.set_display_rotation(rotation, hflip=hflip, vflip=False)


def _rotation_of(turn: Turn) -> tuple[int, bool]:
    """Counterclockwise degrees, and whether to mirror afterwards, as PyAV's `set_display_rotation` expects them."""
    for degrees in (0, 90, 180, 270):
        cosine, sine = round(math.cos(math.radians(degrees))), round(math.sin(math.radians(degrees)))
        for hflip in (False, True):
            side = -1 if hflip else 1
            if turn == (cosine * side, sine * side, -sine, cosine):
                return degrees, hflip
    return 0, False


def audio_of(container: InputContainer) -> Any:
    """The main audio stream; None if there is none that can be read."""
    audio = container.streams.best("audio")
    return audio if audio is not None and getattr(audio, "codec_context", None) is not None else None


def writing(target: Path) -> Any:
    """Open an output container: MP4 or Matroska, depending on the suffix. The same input gives the same bytes."""
    form = "mp4" if target.suffix == ".mp4" else "matroska"
    return av.open(str(target), "w", format=form, container_options={"fflags": "+bitexact"})

