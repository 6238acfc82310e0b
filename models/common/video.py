"""H.264 as footage carries it, through PyAV. RGB uint8 pictures in and out."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np


def h264(pictures: Sequence[np.ndarray], crf: int, preset: str = "veryfast") -> list[np.ndarray]:
    """Code pictures of one even size as one H.264 stream (4:2:0, constant rate factor) and decode it."""
    import av  # here, so that recipes without footage do not need PyAV

    height, width = pictures[0].shape[:2]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="h264") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1
        stream.options = {"crf": str(crf), "preset": preset, "tune": "zerolatency"}
        for picture in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        out.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r", format="h264") as coded:
        coded.streams.video[0].thread_count = 1
        decoded = [frame.to_ndarray(format="rgb24") for frame in coded.decode(video=0)]
    if len(decoded) != len(pictures):
        raise ValueError(f"H.264 gave {len(decoded)} pictures back for {len(pictures)}")
    return decoded
