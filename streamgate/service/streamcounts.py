"""The counters of one stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class StreamCounts:
    """Counters, each written by a single thread; `Stream.tick` copies them to the state."""

    frames_in: int = 0
    dropped: int = 0
    skipped: int = 0
    errors: int = 0
    frames: int = 0
    """Frames analysed."""
    tracks: int = 0
    tracks_open: int = 0
    faces: int = 0
