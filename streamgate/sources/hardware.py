"""Decoding on a GPU: its decoders for FFmpeg, and whether a stream is decoded there.

What a card cannot decode (by codec, profile or size) FFmpeg decodes on the CPU without a word: so it is asked.
"""

from __future__ import annotations

import av
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamgate.errors import DeviceError

CPU = "cpu"
_OWN_DECODERS = {"libdav1d": "av1", "libaom-av1": "av1"}
"""FFmpeg prefers these, which know no GPU, to its own decoder, which knows nothing else."""


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
    try:
        av.CodecContext.create("h264", "r", hwaccel=accelerator(decode))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise no_gpu(decode) from error


def no_gpu(decode: str) -> DeviceError:
    """The error for a GPU that does not decode."""
    return DeviceError(
        f"--decode cuda: no GPU to decode on (FFmpeg cannot open CUDA device {decode.partition(':')[2] or 0}: it is "
        "missing, its memory is full, or in a container NVIDIA_DRIVER_CAPABILITIES lacks video); use --decode cpu"
    )


def decoder(stream: VideoStream, decode: str) -> VideoCodecContext:
    """What decodes the packets of a stream that was opened with `accelerator(decode)`: its own, or the GPU's for it.

    Raises av.error.FFmpegError without a GPU.
    """
    given = stream.codec_context
    own = _OWN_DECODERS.get(given.name)
    if decode == CPU or own is None:
        return given
    context = av.CodecContext.create(own, "r", hwaccel=accelerator(decode))
    assert isinstance(context, VideoCodecContext)
    context.extradata = given.extradata
    context.options = given.options
    context.thread_count = 1
    return context


def is_on_gpu(codec: VideoCodecContext) -> bool:
    """Whether the frame that a decoder gave last was decoded on a GPU."""
    return codec.pix_fmt == "cuda"
