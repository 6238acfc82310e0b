"""Video files, including animated GIFs."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Self

from av import VideoFrame

from streamgate.errors import SourceError
from streamgate.frames import Frame
from streamgate.sources.base import MAX_PIXELS, SAME_TIME_S, WHOLE, HintProvider, SourceStats, TimeRange, first_at
from streamgate.sources.clock import FrameTime
from streamgate.sources.container import unreadable
from streamgate.sources.file_reader import FileReader, OpenOptions, SeekPoint
from streamgate.sources.hardware import CPU
from streamgate.sources.naming import file_source_id
from streamgate.sources.remote import AnyPath
from streamgate.sources.seeking import times_are_unique

_EARLIER_S = (0.0, 1.0, 10.0)
"""Seek targets, in seconds before a wanted frame; they are tried in this order. In a container without an
index, FFmpeg only gets near the requested time, and frames before the next key frame cannot be decoded."""

_WHOLE_S = 1.0
"""Number of seconds at the end of a time range in which no frames are skipped."""


class VideoFile:
    """A `Source` over one video file.

    The first picture is decoded when the source is created, so that a file without pictures is rejected immediately.

    Args:
        path: the file.
        location: display name, the path by default.
        threads: decoder threads, 0 for one per core.
        decode: "cpu" or "cuda:N"; the CPU decodes what the GPU cannot decode, and `stats.not_on_gpu` then names the
            codec.
        max_pixels: pictures with more pixels are not decoded.
        time_range: the part of the file that `frames()` yields; this does not change the times of the frames.

    Raises:
        DeviceError: there is no GPU to decode on.
        SourceError: the file cannot be read or contains no picture.
    """

    live = False

    def __init__(
        self,
        path: AnyPath,
        location: str | None = None,
        threads: int = 0,
        decode: str = CPU,
        max_pixels: int = MAX_PIXELS,
        time_range: TimeRange = WHOLE,
    ) -> None:
        self.location = location or str(path)
        self._time_range = time_range
        self.stats = SourceStats()
        self._opening = OpenOptions(path, self.location, threads, decode, max_pixels)
        self._unique: bool | None = None
        self._marks: list[SeekPoint] = []
        self._reading: FileReader | None = None
        try:
            self._reading, first = self._begin()
            self.source_id = file_source_id(path)
        except OSError as error:
            self.close()
            raise unreadable(self.location, error) from None
        except BaseException:
            self.close()
            raise
        self.width, self.height = first.width, first.height
        whole = self._reading.duration_seconds
        self.duration_seconds = time_range.length(whole)
        self.fps = self._reading.fps
        self.estimated_frames = self._reading.estimated_frames
        if time_range != WHOLE and self.estimated_frames and whole and self.duration_seconds is not None:
            self.estimated_frames = max(1, round(self.estimated_frames * self.duration_seconds / whole))
        self._interlaced = self._reading.interlaced

    @property
    def path(self) -> AnyPath:
        """Path of the file."""
        return self._opening.path

    @property
    def turned(self) -> int:
        """See `Source.turned`."""
        return self._opening.turned

    def read_as(self, *, turned: int = 0, combed: bool = False, restarts: bool | None = None) -> None:
        """Set known properties of the file; see `Source.read_as`."""
        if turned % 2 != self.turned % 2:
            self.width, self.height = self.height, self.width
        before, self._opening = self._opening, replace(self._opening, turned=turned, interlaced=combed)
        if before != self._opening:
            self.close()
        self._unique = None if restarts is None else times_are_unique(self._opening, restarts=restarts)

    def frames(self, hints: HintProvider | None = None) -> Generator[Frame, None, None]:
        """Yield the frames of the time range in presentation order; see `Source.frames`.

        If the range does not start at the beginning of the file, `hints` are ignored: all frames after the seek are
        yielded, and their `frame_index` is None.
        """
        time_range = self._time_range
        if time_range == WHOLE:
            yield from self._all_frames(hints)
            return
        count = 0
        with closing(self._frames_after(time_range.start) if time_range.start else self._all_frames(hints)) as frames:
            for frame in frames:
                if time_range.ends_before(frame.pts_seconds):
                    break
                count += 1
                yield frame
                del frame
        if not count:
            raise SourceError(
                f"{self.location}: has no frame from {time_range.start:g} s"
                f"{f' to {time_range.end:g} s' if time_range.end else ' on'}; check --start and --end"
            )

    def _frames_after(self, pts_seconds: float) -> Generator[Frame, None, None]:
        """Yield the frames at or after a time and count them in `stats`."""
        self.close()
        self.stats = SourceStats()
        for frame in self.frames_from(pts_seconds):
            self.stats.frames += 1
            yield frame
            del frame

    def _all_frames(self, hints: HintProvider | None) -> Generator[Frame, None, None]:
        reading, self._reading = self._reading, None
        if reading is None:
            self.stats = SourceStats(not_on_gpu=self.stats.not_on_gpu)
            reading = FileReader(self._opening, self.stats)
        self._reading = reading
        try:
            # The last frames of a range are all decoded, because they determine the duration in the result.
            end = self._time_range.end
            yield from reading.frames(hints, max(1e-6, end - _WHOLE_S) if end else 0.0)
        finally:
            if reading.falls_back:
                # Within the file, the pictures changed to a format that the GPU does not decode.
                self.stats.not_on_gpu = reading.codec
            reading.close()
            if self._reading is reading:
                self._reading = None

    def frame_at(self, pts_seconds: float) -> Frame | None:
        """The frame at that time; see `Source.frame_at`."""
        return first_at(self.frames_from(pts_seconds), pts_seconds)

    def frames_from(self, pts_seconds: float) -> Generator[Frame, None, None]:
        """Yield the frames at or after a time; see `Source.frames_from`."""
        with closing(self._read_from(pts_seconds)) as frames:
            for reading, time, decoded, torn in frames:
                frame = reading.frame(time, decoded, torn)
                frame.frame_index = None
                yield frame
                del decoded, frame

    def decoded_from(self, pts_seconds: float) -> Generator[tuple[FrameTime, VideoFrame], None, None]:
        """Yield the frames at or after a time as the decoder outputs them (as stored, not upright), with their times.

        These frames are meant for re-encoding.
        """
        with closing(self._read_from(pts_seconds)) as frames:
            for _, time, decoded, _ in frames:
                yield time, decoded
                del decoded

    def close(self) -> None:
        """Release the file; closing twice is fine."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _begin(self) -> tuple[FileReader, Frame]:
        """Open a reader and decode its first frame, on the CPU if the requested GPU cannot decode the file."""
        reading = FileReader(self._opening, self.stats)
        try:
            first = reading.first()
            if not reading.falls_back:
                return reading, first
        except SourceError:
            if self._opening.decode == CPU:
                reading.close()
                raise
        except BaseException:
            reading.close()
            raise
        codec = reading.codec
        reading.close()
        self._opening = replace(self._opening, decode=CPU)
        self.stats = SourceStats(not_on_gpu=codec)
        return self._begin()

    def _read_from(self, pts_seconds: float) -> Generator[tuple[FileReader, FrameTime, VideoFrame, bool], None, None]:
        """Yield the frames at or after a time, read by a separate reader."""
        for earlier in _EARLIER_S:
            if not self._has_unique_times():
                break
            entered = False
            with closing(self._new_reader()) as reading:
                reading.seek(max(0.0, pts_seconds - earlier - self._lead_s))
                with closing(reading.decoded()) as frames:
                    for time, frame, torn in frames:
                        if reading.reorders:
                            self._unique = False
                            break
                        if not entered:
                            # Torn frames before the first intact frame may be torn only because of the seek.
                            if time.pts_seconds > pts_seconds + SAME_TIME_S:
                                break
                            if torn:
                                continue
                            entered = True
                        if time.pts_seconds >= pts_seconds - SAME_TIME_S:
                            yield reading, time, frame, torn
                        del frame
            if entered:
                return
        yield from self._decoded_by_reading(pts_seconds)

    def _decoded_by_reading(
        self, pts_seconds: float
    ) -> Generator[tuple[FileReader, FrameTime, VideoFrame, bool], None, None]:
        """Like `_read_from`, but without seeking by time.

        Decoding starts at the beginning of the file, or at a key frame that an earlier call of this method recorded.
        """
        marks = [mark for mark in self._marks if mark.pts_seconds <= pts_seconds - self._lead_s]
        with closing(self._new_reader()) as reading:
            reading.mark()
            if marks:
                reading.enter(marks[-1])
            try:
                with closing(reading.decoded()) as frames:
                    for time, frame, torn in frames:
                        if time.pts_seconds >= pts_seconds - SAME_TIME_S:
                            yield reading, time, frame, torn
                        del frame
            finally:
                last = self._marks[-1].pts_seconds if self._marks else float("-inf")
                self._marks += [mark for mark in reading.marks if mark.pts_seconds > last]

    def _new_reader(self) -> FileReader:
        """A reader independent of the one that `frames()` uses."""
        return FileReader(replace(self._opening, interlaced=self._is_combed), SourceStats())

    @property
    def _is_combed(self) -> bool:
        return self._opening.interlaced or self.stats.combed > 0

    @property
    def _lead_s(self) -> float:
        """Seconds of video to decode before a wanted frame: deinterlaced frames are rebuilt from their neighbours."""
        return 2.5 / (self.fps or 25.0) if self._interlaced or self._is_combed else 0.0

    def _has_unique_times(self) -> bool:
        """Whether each time identifies exactly one frame, so that seeking by time finds the right one."""
        if self.stats.pts_estimated:
            return False
        if self._unique is None:
            self._unique = times_are_unique(self._opening)
        return self._unique

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
