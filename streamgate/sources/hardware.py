"""Decoding on a GPU: its decoders for FFmpeg, and whether a stream is decoded there.

What a card cannot decode (by codec, profile or size) FFmpeg decodes on the CPU without a word: so it is asked.
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
from streamgate.sources.sidedata import shown_turn, side_data

CPU = "cpu"
_OWN_DECODERS = {"libdav1d": "av1", "libaom-av1": "av1"}
"""FFmpeg prefers these, which know no GPU, to its own decoder, which knows nothing else."""
_NVDEC = "libnvcuvid.so.1"
_OF_THE_DEVICE = (av.error.ExternalError, av.error.UnknownError)
"""What FFmpeg raises when the card fails; on a whole card damaged pictures can raise it too."""
_FIRST = 64
"""Packets by which a decoder gives its first frame."""


def decoder_name(index: int | None) -> str:
    """What `decode` arguments take for CUDA device `index`: "cuda:N"; device 0 where networks run on none."""
    return f"cuda:{index or 0}"


def accelerator(decode: str) -> HWAccel | None:
    """What `av.open` takes for "cpu" or "cuda:N". Decoded pictures are copied to the host, as NV12 or P010."""
    if decode == CPU:
        return None
    return HWAccel("cuda", decode.partition(":")[2] or "0", allow_software_fallback=True)


def check_decoder(decode: str) -> None:
    """Raise DeviceError when FFmpeg cannot decode there at all."""
    if decode == CPU:
        return
    if (missing := _missing()) is not None:
        raise DeviceError(f"--decode cuda: {missing}; or use --decode cpu")
    try:
        av.CodecContext.create("h264", "r", hwaccel=accelerator(decode))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise no_gpu(decode) from error


def _missing() -> str | None:
    """What keeps FFmpeg from decoding on any GPU, with the remedy; None: nothing is known to."""
    if not COPIES_FRAMES_WHOLE:
        return f"decoding on a GPU needs PyAV 18 or later, and {av.__version__} is installed; pip install 'av>=18'"
    try:
        # FFmpeg looks for it when it opens a decoder, and would take the CPU for each file.
        ctypes.CDLL(_NVDEC)
    except OSError:
        return (
            f"the driver's decoder is not there ({_NVDEC} cannot be loaded); install the NVIDIA driver with it, in a "
            "container with NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
        )
    return None


def no_gpu(decode: str) -> DeviceError:
    """The error for a GPU that does not decode."""
    return DeviceError(
        f"--decode cuda: no GPU to decode on (FFmpeg cannot open CUDA device {decode.partition(':')[2] or 0}: it is "
        "missing, lost, or its memory is full; `nvidia-smi` says more); use --decode cpu"
    )


def decoder(
    stream: VideoStream, decode: str, beside: Callable[[], VideoStream] | None = None
) -> VideoCodecContext:
    """What decodes the packets of a stream that was opened with `accelerator(decode)`: its own, or the GPU's for it.

    `beside` opens the same stream once more, for the CPU, where its container may say how pictures are turned.
    Raises av.error.FFmpegError without a GPU.
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
    """Whether the container turns the pictures, or they hold two eyes: only the decoder that FFmpeg made is told."""
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
    """Whether the frame that a decoder gave last was decoded on a GPU."""
    return codec.pix_fmt == "cuda"


class DecoderHealth:
    """Tells a GPU that is lost from damage in a stream: in either case the decoder raises errors."""

    def __init__(self, decode: str) -> None:
        self._decode = decode
        self._asked = decode == CPU

    def failed(self, error: Exception) -> None:
        """To be called with each error of the decoder. Raises DeviceError when there is no GPU any more."""
        if not self._asked and isinstance(error, _OF_THE_DEVICE):
            # Once for each row of errors: opening a device takes a while.
            self._asked = True
            check_decoder(self._decode)

    def decoded(self) -> None:
        """To be called when frames come."""
        self._asked = self._decode == CPU
