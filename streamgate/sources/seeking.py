"""Whether a file can be entered on the way, by the time that its container is asked for."""

from __future__ import annotations

from contextlib import closing

import av

from streamgate.sources.container import has_times, open_video
from streamgate.sources.file_reader import OpenOptions

_JOINABLE = frozenset({"mpegts", "mpeg"})
"""Containers without a header for the whole: files written one behind the other are one file, with two clocks."""


def times_are_unique(opening: OpenOptions, *, restarts: bool | None = None) -> bool:
    """Whether a file can be entered by time: its packets have times, and its clock does not start again on the way.

    `restarts` is whether the clock does, where that is known; else the packets of containers are read in which it can.
    Raises SourceError, DeviceError.
    """
    container, stream = open_video(opening.path, opening.location, 1, max_pixels=opening.max_pixels)
    with closing(container):
        if restarts or not has_times(container.format):
            return False
        if restarts is False or container.format.name not in _JOINABLE:
            return True
        last = None
        try:
            for packet in container.demux(stream):
                if packet.dts is not None:
                    if last is not None and packet.dts < last:
                        return False
                    last = packet.dts
        except (av.error.FFmpegError, OSError):
            return False
    return True
