"""H.264 and HEVC encoding as in real footage, by PyAV. Pictures are RGB uint8."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np


def h264(pictures: Sequence[np.ndarray], crf: int, preset: str = "veryfast") -> list[np.ndarray]:
    """Encode pictures of the same size (even width and height) as an H.264 stream (4:2:0, given CRF), and decode it."""
    return _code(pictures, "libx264", "h264", {"crf": str(crf), "preset": preset, "tune": "zerolatency"})


def hevc(pictures: Sequence[np.ndarray], crf: int, preset: str = "veryfast") -> list[np.ndarray]:
    """The same with HEVC."""
    # Without pools, the encoder uses only this thread. Its own log would bypass Python's logging.
    quiet = "log-level=none:pools=none:frame-threads=1"
    options = {"crf": str(crf), "preset": preset, "tune": "zerolatency", "x265-params": quiet}
    return _code(pictures, "libx265", "hevc", options)


def _code(pictures: Sequence[np.ndarray], encoder: str, container: str, options: dict[str, str]) -> list[np.ndarray]:
    import av  # imported here, because recipes without footage do not need PyAV

    height, width = pictures[0].shape[:2]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(encoder, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1
        stream.options = options
        for picture in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        out.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r", format=container) as coded:
        coded.streams.video[0].thread_count = 1
        decoded = [frame.to_ndarray(format="rgb24") for frame in coded.decode(video=0)]
    if len(decoded) != len(pictures):
        raise ValueError(f"{encoder} returned {len(decoded)} pictures instead of {len(pictures)}")
    return decoded
