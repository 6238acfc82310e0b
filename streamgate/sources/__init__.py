"""Video input: files, folders of pictures and GIFs, each as a `Source` of upright, timed frames.

`discover` expands the given inputs into `SourceSpec`s. Each of them opens as a `Source`, whose `frames()` yields the
frames in order.
"""

from __future__ import annotations

from pathlib import Path

from streamgate.sources.base import Source, SourceStats
from streamgate.sources.discovery import Discovery, SourceSpec, discover, spec_of
from streamgate.sources.picture import picture_of_rgb

__all__ = [
    "Discovery", "Source", "SourceSpec", "SourceStats", "discover", "open_source", "picture_of_rgb",
]  # fmt: skip


def open_source(
    location: str | Path | SourceSpec,
    *,
    name: str | None = None,
    sequence_fps: float | None = None,
    threads: int = 0,
) -> Source:
    """Open one file, or one folder of pictures.

    Args:
        location: path of a video, a picture, or a folder that is a single source; or a `SourceSpec` from `discover`.
        name: replaces the location in messages and records.
        sequence_fps: read the pictures of a folder as a sequence at this rate (a `SourceSpec` has its own rate).
        threads: decoder threads, 0 for one per core.

    Raises:
        UsageError: the location is the URL of a live stream, or the frame rate is invalid.
        SourceError: the source cannot be read; the one-line message says why and what to do.
    """
    spec = location if isinstance(location, SourceSpec) else spec_of(location, sequence_fps)
    source = spec.open(threads)
    if name is not None:
        source.location = name
    return source
