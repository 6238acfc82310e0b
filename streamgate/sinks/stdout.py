"""`--json`: the records of kept faces as JSON lines on standard output."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import BinaryIO, Self

from streamgate.errors import SinkError
from streamgate.frames import Candidate, TrackEnd
from streamgate.records import dumps, face_record, image_path
from streamgate.sinks.base import SourceInfo, SourceResult
from streamgate.sinks.shelf import Shelf


class StdoutSink:
    """Prints a source's records when it is committed, by (track, rank), never mixed with another source's.

    `images` says that a disk sink writes the crops of the same run: `image` then is their path relative to
    OUT, else null. `stream` takes UTF-8 bytes (standard output when None). Raises SinkError. Safe for several
    threads.
    """

    def __init__(self, *, images: bool, stream: BinaryIO | None = None) -> None:
        self._images = images
        self._stream = stream
        self._mutex = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def open_source(self, source: SourceInfo) -> _StdoutWriter:
        return _StdoutWriter(self, self._images)

    def finish(self, results: list[SourceResult], timing: Mapping[str, float]) -> None:
        pass

    def _print(self, lines: Shelf) -> None:
        # Bytes, not text: the terminal's encoding must not decide whether a name can be printed.
        stream = self._stream or sys.stdout.buffer
        try:
            with self._mutex:
                for line in lines.in_order():
                    stream.write(line)
                stream.flush()
        except BrokenPipeError as error:
            raise SinkError("standard output was closed before all records were printed") from error
        except OSError as error:
            raise SinkError(f"cannot write to standard output: {error.strerror or error}") from error


class _StdoutWriter:
    def __init__(self, sink: StdoutSink, images: bool) -> None:
        self._sink = sink
        self._images = images
        self._lines = Shelf()

    def evaluated(self, candidate: Candidate) -> None:
        pass

    def track(self, ended: TrackEnd) -> None:
        for shot in ended.shots:
            image = image_path(shot) if self._images else None
            line = dumps(face_record(shot, image)).encode() + b"\n"
            try:
                self._lines.put((ended.track.track_id, shot.rank), line)
            except OSError as error:
                raise SinkError(f"no room for temporary files: {error.strerror or error}") from error

    def commit(self, result: SourceResult) -> None:
        self._sink._print(self._lines)
        self._lines.close()

    def discard(self) -> None:
        self._lines.close()
