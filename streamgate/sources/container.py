"""Opens media files with FFmpeg: no other file is opened, and errors are explained in plain words."""

from __future__ import annotations

import os
import stat
from functools import lru_cache

import av
from av.container import InputContainer
from av.format import ContainerFormat
from av.video.stream import VideoStream

from streamgate.errors import SourceError
from streamgate.redaction import scrub
from streamgate.sources.base import MAX_PIXELS
from streamgate.sources.encryption import ENCRYPTED, is_encrypted, is_scrambled
from streamgate.sources.hardware import CPU, accelerator, no_gpu
from streamgate.sources.pyav import METADATA_ERRORS, TAKES_STREAM_OPTIONS, ArgumentError
from streamgate.sources.remote import AnyPath, RemotePath, trouble_of
from streamgate.sources.stores import RemoteError, stall_seconds

REFUSED_FORMATS = frozenset(
    {
        # These formats make FFmpeg open other files or URLs that are named inside the file.
        "concat", "dash", "hls", "imf", "sdp", "rtp", "rtsp", "sap", "webm_dash_manifest", "image2", "mlv",
        "vobsub", "lavfi", "svg_pipe",
        # With these formats, FFmpeg reads plain text or arbitrary bytes as pictures.
        "adf", "bin", "data", "idf", "rawvideo", "tty", "xbin",
    }
)  # fmt: skip


_BUFFER, _REMOTE_BUFFER = 32768, 1 << 18
"""Number of bytes that FFmpeg reads at once: its default for local files, and more for remote files, for which each
read is a call into Python."""


def open_video(
    path: AnyPath,
    display: str,
    threads: int = 0,
    decode: str = CPU,
    max_pixels: int = MAX_PIXELS,
    limited_by: str = "decoding.max_pixels",
) -> tuple[InputContainer, VideoStream]:
    """Open `path` and choose its video stream.

    Args:
        path: a local file, or a file in a store.
        display: name of the input in messages.
        threads: decoder threads, 0 for one per core.
        decode: "cpu" or "cuda:N" for a GPU; see `sources.hardware`.
        max_pixels: larger pictures are rejected, either by this function, if the header gives their size, or by the
            decoder, which then raises errors instead of returning the pictures.
        limited_by: the configuration key that `max_pixels` comes from, for messages.

    Raises:
        SourceError: the input cannot be opened; the message is one line that names the input and what to do.
        DeviceError: there is no GPU to decode on.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(display, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{display}: is not a regular file; write the stream to a file first")
    if status.st_size == 0:
        raise SourceError(f"{display}: the file is empty (0 bytes); copy or record it again")
    try:
        container = _open(path, decode, max_pixels)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceError(_why_not_opened(path, display, error)) from None
    try:
        stream = _video_stream(container, path, display)
        if (words := over_limit(stream, max_pixels)) is not None:
            raise SourceError(f"{display}: {words} {limited_by} ({max_pixels}); scale it down or raise the limit")
        stream.codec_context.options = pixel_limit(max_pixels)
        stream.thread_type = "AUTO"
        # Decoding on a GPU needs no CPU threads; each extra thread would only delay pictures.
        stream.codec_context.thread_count = threads if decode == CPU else 1
    except BaseException:
        container.close()
        raise
    return container, stream


def pixel_limit(max_pixels: int) -> dict[str, str]:
    """FFmpeg's option that makes a decoder reject larger pictures before it allocates memory for them.

    Set it on the codec and also when opening the file, because FFmpeg decodes the first pictures while it opens the
    file.
    """
    return {"max_pixels": str(max_pixels)}


def over_limit(stream: VideoStream, max_pixels: int) -> str | None:
    """The beginning of an error message if the header gives a size above `max_pixels`; None otherwise."""
    width, height = stream.codec_context.width, stream.codec_context.height
    return f"has frames of {width} x {height} px, more than" if width * height > max_pixels else None


def _open(path: AnyPath, decode: str, max_pixels: int) -> InputContainer:
    def open_with(decode: str) -> InputContainer:
        remote = isinstance(path, RemotePath)
        return av.open(
            path.open(ends=True) if isinstance(path, RemotePath) else f"file:{path.absolute()}",
            options=pixel_limit(max_pixels) if TAKES_STREAM_OPTIONS else {},
            # A file from a store must not refer to files on this machine.
            container_options={
                "protocol_whitelist": "none" if remote else "file", "format_whitelist": _accepted_formats()
            },
            buffer_size=_REMOTE_BUFFER if remote else _BUFFER,
            **METADATA_ERRORS,
            hwaccel=accelerator(decode),
            # Files need a timeout too: damage can make FFmpeg scan the entire rest of the file, and network disks can
            # hang.
            timeout=stall_seconds(),
        )

    if decode == CPU:
        return open_with(CPU)
    try:
        return open_with(decode)
    except (av.error.FFmpegError, OSError, ValueError):
        # If the file opens on the CPU, the device is at fault; otherwise this raises the file's own error.
        open_with(CPU).close()
        raise no_gpu(decode) from None


def unreadable(display: str, error: OSError) -> SourceError:
    """Turn an operating system error into a SourceError."""
    if isinstance(error, RemoteError):
        return SourceError(f"{display}: {error.words}")
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{display}: no such file or folder; check the path")
    if isinstance(error, PermissionError):
        return SourceError(f"{display}: no permission to read it; check the file's permissions")
    return SourceError(f"{display}: cannot be read ({scrub(os.strerror(error.errno or 0))})")


def _video_stream(container: InputContainer, path: AnyPath, display: str) -> VideoStream:
    streams = [s for s in container.streams.video if "attached_pic" not in (s.disposition.name or "")]
    if not streams:
        what = "only audio" if container.streams.audio else "no video stream"
        raise SourceError(f"{display}: has {what}; give a file with video")
    best = container.streams.best("video")
    stream = next((s for s in streams if best is not None and s.index == best.index), streams[0])
    if is_encrypted(path, stream.id if "mp4" in container.format.name else None):
        raise SourceError(f"{display}: {ENCRYPTED}")
    if stream.codec_context is None or not stream.codec_context.is_decoder:
        raise SourceError(f"{display}: there is no decoder for its video codec; convert it, for example to H.264")
    return stream


def _why_not_opened(path: AnyPath, display: str, error: Exception) -> str:
    if (trouble := trouble_of(path)) is not None:
        return f"{display}: {trouble.words}"
    if isinstance(error, (PermissionError, FileNotFoundError)):
        return str(unreadable(display, error))
    if isinstance(error, av.error.ExitError):
        return f"{display}: could not be opened within {stall_seconds():g} s; check the file and its disk"
    if isinstance(error, ArgumentError):
        return f"{display}: is a playlist or refers to other files; give the video files themselves"
    if is_scrambled(path) or is_encrypted(path, None):
        return f"{display}: {ENCRYPTED}"
    head = _head(path)
    if head[4:8] in (b"styp", b"sidx", b"moof", b"emsg"):
        return (
            f"{display}: is a later segment of a stream and lacks the header, which is in the first segment; "
            "give the whole recording in one file"
        )
    if head[4:8] in (b"ftyp", b"mdat", b"free", b"wide", b"skip"):
        return (
            f"{display}: the MP4 is cut off or damaged (its index, the moov atom, is missing or broken); "
            "copy or record it again"
        )
    if head and not any(byte < 9 for byte in head):
        return f"{display}: is text, not video; check the file"
    return f"{display}: is not a video that FFmpeg can read, or it is damaged; check the file"


def has_times(container_format: ContainerFormat) -> bool:
    """Whether the packets of a container format have timestamps."""
    no_timestamps = 0x80  # AVFMT_NOTIMESTAMPS: raw streams
    return not int(container_format.flags) & no_timestamps


def _head(path: AnyPath) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError:
        return b""


@lru_cache(maxsize=1)
def _accepted_formats() -> str:
    return ",".join(sorted(av.formats_available - REFUSED_FORMATS))
