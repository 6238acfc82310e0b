"""What one stream counts while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class StreamCounts:
    """Figures that one thread each writes; `Stream.tick` brings them to the state."""

    frames_in: int = 0
    dropped: int = 0
    skipped: int = 0
    errors: int = 0
    frames: int = 0
    """Analysed."""
    tracks: int = 0
    tracks_open: int = 0
    faces: int = 0
