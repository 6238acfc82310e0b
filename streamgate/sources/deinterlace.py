"""Deinterlacing, for material that says it is interlaced."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction

from av import VideoFrame
from av.error import BlockingIOError as NothingReady
from av.error import EOFError as Drained
from av.filter import Graph


class Deinterlacer:
    """Passes frames through until one is interlaced, from then on through FFmpeg's bwdif filter.

    The filter holds one frame back and keeps times; frames that are progressive pass it unchanged. With each frame goes
    whether it is torn.

    Args:
        time_base: of the stream.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None
        self._torn: deque[bool] = deque()  # of the frames inside

    def feed(self, frame: VideoFrame, torn: bool) -> Iterator[tuple[VideoFrame, bool]]:
        """Yield the frames that are ready, in order."""
        if self._graph is None and not frame.interlaced_frame:
            yield frame, torn
            return
        shape = (frame.width, frame.height, frame.format.name)
        if shape != self._shape:
            yield from self.flush()
            self._graph, self._shape = self._build(frame), shape
        assert self._graph is not None
        self._graph.vpush(frame)
        self._torn.append(torn)
        yield from self._ready()

    def flush(self) -> Iterator[tuple[VideoFrame, bool]]:
        """Yield the frames held back."""
        if self._graph is not None:
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

    def _ready(self) -> Iterator[tuple[VideoFrame, bool]]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.vpull()
            except (NothingReady, Drained):
                return
            yield frame, self._torn.popleft()
            del frame
