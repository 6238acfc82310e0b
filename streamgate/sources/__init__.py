"""Video in: files, folders of pictures, GIFs, each as a `Source` of upright, timed frames.

`discover` finds what there is below the named inputs; each `SourceSpec` it returns opens as a `Source`,
whose `frames()` are read once, in order.
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
        location: path of a video, a picture, or a folder that is one source; or what `discover` found.
        name: replaces the location in display and records.
        sequence_fps: the pictures of a folder are a sequence at this rate (a found one has its own).
        threads: decoder threads, 0 for one a core.

    Raises:
        UsageError: an address of a live stream, or a wrong frame rate.
        SourceError: it cannot be read; one line says why and what to do.
    """
    spec = location if isinstance(location, SourceSpec) else spec_of(location, sequence_fps)
    source = spec.open(threads)
    if name is not None:
        source.location = name
    return source
