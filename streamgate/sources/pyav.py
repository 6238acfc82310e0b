"""Differences between the supported releases of PyAV, 15 to 19."""

from __future__ import annotations

from typing import Any

import av
from av import VideoFrame

_RELEASE = int(av.__version__.split(".")[0])

TAKES_STREAM_OPTIONS = _RELEASE >= 17
"""Whether `av.open` may be given stream options: older releases crash if streams are found only while probing."""

METADATA_ERRORS: dict[str, Any] = {"metadata_errors": "replace"} if _RELEASE < 19 else {}
"""Options for `av.open` that allow opening files whose metadata is not UTF-8; PyAV 19 needs no option for this."""

COPIES_FRAMES_WHOLE = _RELEASE >= 18
"""Whether copying a GPU-decoded frame to the host keeps its metadata. Older releases keep only the time (no rotation,
colour properties or damage flags), and their decoders do not report that they fell back to the CPU."""

ArgumentError: type[Exception] = getattr(av.error, "ArgumentError", None) or getattr(av.error, "ValueError")  # noqa: B009
"""PyAV's exception for FFmpeg's EINVAL; it had another name before PyAV 17."""

UNSPECIFIED = 2
"""FFmpeg's code for colour properties that a stream does not specify."""


def colour_of(frame: VideoFrame) -> tuple[int, int]:
    """FFmpeg's codes of the frame's transfer function and primaries.

    Releases before PyAV 17 do not report them, so both codes are `UNSPECIFIED` and HDR video is not tone-mapped.
    """
    return getattr(frame, "color_trc", UNSPECIFIED), getattr(frame, "color_primaries", UNSPECIFIED)
