"""Deinterlacing, for material that says it is interlaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

from av import VideoFrame
from av.error import BlockingIOError as NothingReady
from av.error import EOFError as Drained
from av.error import FFmpegError
from av.filter import Graph

from streamgate.sources.base import SourceStats


class Deinterlacer:
    """Passes frames through until one is interlaced, from then on through FFmpeg's bwdif filter.

    The filter holds one frame back and keeps times; frames that are progressive pass it unchanged. A frame that it
    does not take (damage makes frames of a few pixels that claim to be interlaced) is left out and counted.

    Args:
        time_base: of the stream.
        stats: what is left out is counted there, as decode errors.
    """

    def __init__(self, time_base: Fraction, stats: SourceStats) -> None:
        self._time_base = time_base
        self._stats = stats
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def feed(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Yield the frames that are ready, in order."""
        if self._graph is None and not frame.interlaced_frame:
            yield frame
            return
        shape = (frame.width, frame.height, frame.format.name)
        if shape != self._shape:
            yield from self.flush()
        try:
            if self._graph is None:
                self._graph, self._shape = self._build(frame), shape
            self._graph.vpush(frame)
        except (FFmpegError, OSError, ValueError):
            self._stats.decode_errors += 1
            self._graph = self._shape = None
            return
        yield from self._ready()

    def flush(self) -> Iterator[VideoFrame]:
        """Yield the frames held back."""
        if self._graph is not None:
            with suppress(FFmpegError, OSError, ValueError):
                self._graph.vpush(None)
                yield from self._ready()
            self._graph = self._shape = None

    def _build(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base
        )
        filtered = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        sink = graph.add("buffersink")
        source.link_to(filtered)
        filtered.link_to(sink)
        graph.configure()
        return graph

    def _ready(self) -> Iterator[VideoFrame]:
        graph = self._graph
        assert graph is not None
        while True:
            try:
                frame = graph.vpull()
            except (NothingReady, Drained):
                return
            except (FFmpegError, OSError, ValueError):
                self._stats.decode_errors += 1
                self._graph = self._shape = None
                return
            yield frame
            del frame
