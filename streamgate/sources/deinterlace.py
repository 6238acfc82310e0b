"""Deinterlaces video, whether it is flagged as interlaced or found to be interlaced without the flag."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

from av import VideoFrame
from av.error import BlockingIOError as NothingReady
from av.error import EOFError as Drained
from av.error import FFmpegError
from av.filter import Graph

from streamgate.sources.base import SourceStats
from streamgate.sources.combing import comb_detector


class Deinterlacer:
    """Passes frames through unchanged until one is interlaced; from then on, all frames go through FFmpeg's bwdif
    filter.

    The filter holds one frame back and keeps the times of frames. Progressive frames pass through the filter unchanged,
    unless combing is detected in some of them; in that case, all frames are treated as interlaced. Each frame is
    accompanied by a flag that says whether the frame is torn. A frame that the filter rejects is dropped and counted;
    for example, damage can produce frames of a few pixels that are flagged as interlaced.

    Args:
        time_base: time base of the stream.
        stats: counters to which dropped frames are added, as decode errors.
        interlaced: whether the video is known to be interlaced but not flagged as such.
    """

    def __init__(self, time_base: Fraction, stats: SourceStats, *, interlaced: bool = False) -> None:
        self._time_base = time_base
        self._stats = stats
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str, bool] | None = None
        self._is_interlaced = comb_detector(interlaced)
        self.unflagged = 0
        """Number of frames that were deinterlaced although they are not flagged as interlaced."""
        self._torn: deque[bool] = deque()  # whether each frame inside the filter is torn

    def feed(self, frame: VideoFrame, torn: bool) -> Iterator[tuple[VideoFrame, bool]]:
        """Add a frame and yield the frames that are ready, in order."""
        found = not frame.interlaced_frame and self._is_interlaced(frame)
        if self._graph is None and not frame.interlaced_frame and not found:
            yield frame, torn
            return
        self.unflagged += found
        shape = (frame.width, frame.height, frame.format.name, found)
        if shape != self._shape:
            yield from self.flush()
        try:
            if self._graph is None:
                self._graph, self._shape = self._build(frame, "all" if found else "interlaced"), shape
            self._graph.vpush(frame)
        except (FFmpegError, OSError, ValueError):
            self._give_up()
            return
        self._torn.append(torn)
        yield from self._ready()

    def flush(self) -> Iterator[tuple[VideoFrame, bool]]:
        """Yield the frames that the filter still holds back."""
        if self._graph is not None:
            with suppress(FFmpegError, OSError, ValueError):
                self._graph.vpush(None)
                yield from self._ready()
            self._graph = self._shape = None

    def _build(self, frame: VideoFrame, which: str) -> Graph:
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base
        )
        filtered = graph.add("bwdif", f"mode=send_frame:parity=auto:deint={which}")
        sink = graph.add("buffersink")
        source.link_to(filtered)
        filtered.link_to(sink)
        graph.configure()
        return graph

    def _ready(self) -> Iterator[tuple[VideoFrame, bool]]:
        graph = self._graph
        assert graph is not None
        while True:
            try:
                frame = graph.vpull()
            except (NothingReady, Drained):
                return
            except (FFmpegError, OSError, ValueError):
                self._give_up()
                return
            yield frame, self._torn.popleft()
            del frame

    def _give_up(self) -> None:
        """Handle a filter error: count the error, and use a new filter from the next frame on."""
        self._stats.decode_errors += 1
        self._graph = self._shape = None
        self._torn.clear()
