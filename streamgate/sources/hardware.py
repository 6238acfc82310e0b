"""Decodes on a GPU: chooses FFmpeg's decoder, and checks whether a stream is actually decoded on the GPU.

FFmpeg silently falls back to the CPU for video whose codec, profile or size the GPU cannot decode.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import av
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamgate.errors import DeviceError
from streamgate.sources.orientation import UNTURNED
from streamgate.sources.pyav import COPIES_FRAMES_WHOLE
from streamgate.sources.side_data import shown_turn, side_data

CPU = "cpu"
_OWN_DECODERS = {"libdav1d": "av1", "libaom-av1": "av1"}
"""Maps the decoders that FFmpeg prefers, but that cannot use a GPU, to FFmpeg's own decoders, which work only on a GPU.
"""
_NVDEC = "libnvcuvid.so.1"
_DEVICE_ERRORS = (av.error.ExternalError, av.error.UnknownError)
"""Errors that FFmpeg raises when the GPU fails; damaged pictures can also cause them on a working GPU."""
_FIRST = 64
"""Number of packets within which a decoder outputs its first frame."""


def decoder_name(index: int | None) -> str:
    """The `decode` argument "cuda:N" for CUDA device `index`; None (no network runs on a GPU) stands for device 0."""
    return f"cuda:{index or 0}"


def accelerator(decode: str) -> HWAccel | None:
    """The `hwaccel` argument of `av.open` for "cpu" or "cuda:N". Pictures are copied to the host as NV12 or P010."""
    if decode == CPU:
        return None
    return HWAccel("cuda", decode.partition(":")[2] or "0", allow_software_fallback=True)


def check_decoder(decode: str) -> None:
    """Raise DeviceError if FFmpeg cannot decode on the device that `decode` names."""
    if decode == CPU:
        return
    if (missing := _missing()) is not None:
        raise DeviceError(f"--decode cuda: {missing}; or use --decode cpu")
    try:
        av.CodecContext.create("h264", "r", hwaccel=accelerator(decode))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise no_gpu(decode) from error


def _missing() -> str | None:
    """Why FFmpeg cannot decode on any GPU, with the remedy; None if no reason is known."""
    if not COPIES_FRAMES_WHOLE:
        return (
            f"decoding on a GPU needs PyAV 18 or later, but {av.__version__} is installed; upgrade it with "
            "`pip install 'av>=18'`"
        )
    try:
        # FFmpeg loads this library when it opens a decoder; if it is missing, FFmpeg decodes all files on the CPU.
        ctypes.CDLL(_NVDEC)
    except OSError:
        return (
            f"the driver's video decoder is missing ({_NVDEC} cannot be loaded); install an NVIDIA driver that "
            "includes it, or, in a container, set NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
        )
    return None


def no_gpu(decode: str) -> DeviceError:
    """The error for a GPU that cannot decode."""
    return DeviceError(
        f"--decode cuda: no GPU to decode on (FFmpeg cannot open CUDA device {decode.partition(':')[2] or 0}: it is "
        "missing, lost, or out of memory; see `nvidia-smi`); use --decode cpu"
    )


def decoder(
    stream: VideoStream, decode: str, beside: Callable[[], VideoStream] | None = None
) -> VideoCodecContext:
    """The decoder for a stream opened with `accelerator(decode)`: the stream's own, or a GPU decoder for its codec.

    `beside` opens the same stream again on the CPU, to check whether the container specifies a rotation.
    Raises av.error.FFmpegError if there is no GPU.
    """
    given = stream.codec_context
    own = _OWN_DECODERS.get(given.name)
    if decode == CPU or own is None or (beside is not None and _is_turned(beside())):
        return given
    context = av.CodecContext.create(own, "r", hwaccel=accelerator(decode))
    assert isinstance(context, VideoCodecContext)
    context.extradata = given.extradata
    context.options = given.options
    context.thread_count = 1
    return context


def _is_turned(stream: VideoStream) -> bool:
    """Whether the container rotates its pictures or marks them as stereo pairs.

    Only the stream's own decoder reports this, not a separate GPU decoder.
    """
    codec, turned = stream.codec_context, False
    try:
        frames = (
            frame
            for _, packet in zip(range(_FIRST), stream.container.demux(stream), strict=False)  # type: ignore[attr-defined]
            for frame in codec.decode(packet)
        )
        if (first := next(frames, None)) is not None:
            turned = shown_turn(first) != UNTURNED or side_data(first, "STEREO3D") is not None
    except (av.error.FFmpegError, OSError, ValueError):
        pass
    codec.flush_buffers()
    return turned


def is_on_gpu(codec: VideoCodecContext) -> bool:
    """Whether the last frame of a decoder was decoded on a GPU."""
    return codec.pix_fmt == "cuda"


class DecoderHealth:
    """Distinguishes a lost GPU from damage in a stream: FFmpeg raises the same errors for both."""

    def __init__(self, decode: str) -> None:
        self._decode = decode
        self._checked = decode == CPU

    def failed(self, error: Exception) -> None:
        """Must be called with each error of the decoder. Raises DeviceError if the GPU is no longer available."""
        if not self._checked and isinstance(error, _DEVICE_ERRORS):
            # Checked only once per run of consecutive errors, because opening a device takes a while.
            self._checked = True
            check_decoder(self._decode)

    def decoded(self) -> None:
        """Must be called when frames were decoded."""
        self._checked = self._decode == CPU
