"""Decides whether the frames of a file can be found by seeking to their times."""

from __future__ import annotations

from contextlib import closing

import av

from streamgate.sources.container import has_times, open_video
from streamgate.sources.file_reader import OpenOptions

_JOINABLE = frozenset({"mpegts", "mpeg"})
"""Containers without a global header. Two such files, concatenated, are a valid file in which the clock restarts."""


def times_are_unique(opening: OpenOptions, *, restarts: bool | None = None) -> bool:
    """Whether seeking by time is reliable: the packets have times, and the clock does not restart within the file.

    `restarts` says whether the clock restarts. If it is None (not known) and the container allows restarts, all packets
    are read to find out. Raises SourceError, DeviceError.
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
