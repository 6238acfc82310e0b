"""What differs between the releases of PyAV that work here, 15 to 19."""

from __future__ import annotations

from typing import Any

import av
from av import VideoFrame

_RELEASE = int(av.__version__.split(".")[0])

TAKES_STREAM_OPTIONS = _RELEASE >= 17
"""Whether `av.open` may be given options of the streams: before, it crashes where streams are found while probing."""

METADATA_ERRORS: dict[str, Any] = {"metadata_errors": "replace"} if _RELEASE < 19 else {}
"""For `av.open`: titles that are not UTF-8 must not end a file. PyAV 19 has no such option and reads them."""

COPIES_FRAMES_WHOLE = _RELEASE >= 18
"""Whether a frame that a GPU decoded keeps all but its pixels on its way to the host. Before, only its time is left (no
rotation, colours, damage), and a decoder never tells that it went on with the CPU."""

ArgumentError: type[Exception] = getattr(av.error, "ArgumentError", None) or getattr(av.error, "ValueError")  # noqa: B009
"""FFmpeg's EINVAL; under another name before PyAV 17."""

UNSPECIFIED = 2
"""FFmpeg's code for colour values that a stream does not tell."""


def colour_of(frame: VideoFrame) -> tuple[int, int]:
    """FFmpeg's codes of transfer function and primaries; unspecified before PyAV 17, so HDR keeps its flat look."""
    return getattr(frame, "color_trc", UNSPECIFIED), getattr(frame, "color_primaries", UNSPECIFIED)
