"""Video files, animated GIFs included."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from av import VideoFrame

from streamgate.errors import SourceError
from streamgate.frames import Frame
from streamgate.sources.base import MAX_PIXELS, SAME_TIME_S, WHOLE, HintProvider, SourceStats, TimeRange, first_at
from streamgate.sources.clock import FrameTime
from streamgate.sources.container import unreadable
from streamgate.sources.file_reader import FileReader, OpenOptions, SeekPoint, times_are_unique
from streamgate.sources.hardware import CPU
from streamgate.sources.naming import file_source_id

_EARLIER_S = (0.0, 1.0, 10.0)
"""How much before a wanted frame a file is entered, one after the other: where a container has no index FFmpeg lands
near the time it is asked for, and what comes up to the next key frame cannot be decoded."""


class VideoFile:
    """A `Source` over one video file.

    The first picture is decoded at once, so that a file which gives none is refused here.

    Args:
        path: the file.
        location: how it is displayed, the path by default.
        threads: decoder threads, 0 for one a core.
        decode: "cpu" or "cuda:N"; what the GPU does not decode the CPU does, which `stats` tells.
        max_pixels: pictures with more are not decoded.
        stretch: the part that `frames()` gives; times stay those of the whole file.

    Raises:
        DeviceError: there is no GPU to decode on.
        SourceError: the file cannot be read or holds no picture.
    """

    live = False

    def __init__(
        self,
        path: Path,
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
    def path(self) -> Path:
        """Where the file is."""
        return self._opening.path

    @property
    def turned(self) -> int:
        """See `Source.turned`."""
        return self._opening.turned

    def read_as(self, *, turned: int = 0, combed: bool = False, restarts: bool | None = None) -> None:
        """Read it from now on as it was found to be; see `Source.read_as`."""
        if turned % 2 != self.turned % 2:
            self.width, self.height = self.height, self.width
        before, self._opening = self._opening, replace(self._opening, turned=turned, interlaced=combed)
        if before != self._opening:
            self.close()
        self._unique = None if restarts is None else times_are_unique(self._opening, restarts=restarts)

    def frames(self, hints: HintProvider | None = None) -> Generator[Frame, None, None]:
        """Yield the frames of the stretch in the order shown; see `Source.frames`.

        Where the stretch begins later than the file, the guide is not asked: a file that is entered on the way gives
        its frames without their index, and all of them.
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
                f"{f' to {time_range.end:g} s' if time_range.end else ' on'}; see --start and --end"
            )

    def _frames_after(self, pts_seconds: float) -> Generator[Frame, None, None]:
        """The frames from a time on, counted."""
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
            yield from reading.frames(hints)
        finally:
            reading.close()
            if self._reading is reading:
                self._reading = None

    def frame_at(self, pts_seconds: float) -> Frame | None:
        """The frame of that time; see `Source.frame_at`."""
        return first_at(self.frames_from(pts_seconds), pts_seconds)

    def frames_from(self, pts_seconds: float) -> Generator[Frame, None, None]:
        """Yield the frames from a time on; see `Source.frames_from`."""
        with closing(self._found_from(pts_seconds)) as found:
            for reading, time, decoded, torn in found:
                frame = reading.frame(time, decoded, torn)
                frame.frame_index = None
                yield frame
                del decoded, frame

    def decoded_from(self, pts_seconds: float) -> Generator[tuple[FrameTime, VideoFrame], None, None]:
        """The same frames as the decoder gave them (stored, not upright), each with its time; to encode them again."""
        with closing(self._found_from(pts_seconds)) as found:
            for _, time, decoded, _ in found:
                yield time, decoded
                del decoded

    def close(self) -> None:
        """Release the file; closing twice is fine."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _begin(self) -> tuple[FileReader, Frame]:
        """A reading with its first frame; on the CPU where the GPU that was asked for cannot decode the file."""
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

    def _found_from(self, pts_seconds: float) -> Generator[tuple[FileReader, FrameTime, VideoFrame, bool], None, None]:
        """The frames from a time on, in a reading of their own."""
        for earlier in _EARLIER_S:
            if not self._has_unique_times():
                break
            entered = False
            with closing(self._another()) as reading:
                reading.seek(max(0.0, pts_seconds - earlier - self._lead_s))
                with closing(reading.decoded()) as frames:
                    for time, frame, torn in frames:
                        if reading.reorders:
                            self._unique = False
                            break
                        if not entered:
                            # What is torn before the first whole frame may be so because it was entered here.
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
        yield from self._found_by_reading(pts_seconds)

    def _found_by_reading(
        self, pts_seconds: float
    ) -> Generator[tuple[FileReader, FrameTime, VideoFrame, bool], None, None]:
        """The same by decoding from the beginning, or from a key frame passed when that was done before."""
        marks = [mark for mark in self._marks if mark.pts_seconds <= pts_seconds - self._lead_s]
        with closing(self._another()) as reading:
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

    def _another(self) -> FileReader:
        """A reading beside the one that gives the frames."""
        return FileReader(replace(self._opening, interlaced=self._is_combed), SourceStats())

    @property
    def _is_combed(self) -> bool:
        return self._opening.interlaced or self.stats.combed > 0

    @property
    def _lead_s(self) -> float:
        """Time before a wanted frame at which to begin: those that are rebuilt from their neighbours need some."""
        return 2.5 / (self.fps or 25.0) if self._interlaced or self._is_combed else 0.0

    def _has_unique_times(self) -> bool:
        """Whether a time that the container is asked for is that of one frame alone, and of the wanted one."""
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
