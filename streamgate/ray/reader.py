"""The reader: an actor that reads sources on a node of a Ray cluster, like the worker process of a local run.

A reader commits its results to its own folder below OUT, from which the driver collects them; see `cluster`.
"""

from __future__ import annotations

import os
import platform
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from streamgate import __version__
from streamgate.engine import Engine
from streamgate.errors import DeviceError, SinkError, StreamgateError, UsageError, unexpected
from streamgate.runtime.pipeline import Progress
from streamgate.sinks.disk import DiskSink
from streamgate.sources import Source, SourceSpec
from streamgate.sources.base import TimeRange
from streamgate.sources.hardware import CPU, check_decoder, decoder_name
from streamgate.store.run import RunInfo, SourceInfo, SourceResult

PROBE = "probe"


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """Options of all readers of a run.

    Attributes:
        session: folder below OUT that contains the folders of the readers.
        token: content of the file `PROBE` in `session`; a node that can read this file shares the file system.
        threads: decoder threads per source.
    """

    session: Path
    token: str
    config: Mapping[str, Any]
    models: str
    device: str
    decode: str
    threads: int
    version: str = __version__
    debug: bool = False


@dataclass(slots=True)
class SourceProgress(Progress):
    """How far a reader has read a source. `source_id` is empty until the source is open."""

    index: int
    source_id: str = ""
    estimated_frames: int | None = None
    frames: int = 0
    kept: int = 0

    def started(self, source: Source) -> None:
        self.estimated_frames, self.source_id = source.estimated_frames, source.source_id

    def advanced(self, source: Source, frames: int, pts_seconds: float, kept: int) -> None:
        self.frames, self.kept = frames, kept


Opened = tuple[RunInfo, list[str], str]
"""What a reader returns when it is ready: its run info, its notes, and the name of its host."""
Finished = tuple[SourceResult, list[str], list[str]]
"""What a reader returns for a source: the result, the names of the committed files, and the reader's notes."""


class Reader:
    """Reads sources, several at once if called concurrently. `name` is the name of the reader's folder in the session.
    """

    def __init__(self, name: str, options: ReaderOptions) -> None:
        self._folder = options.session / name
        self._options = options
        self._stop = threading.Event()
        self._progress: dict[int, SourceProgress] = {}
        self._host = platform.node()

    def open(self) -> Opened | StreamgateError:
        """Open the networks. Errors are returned, because Ray would wrap raised errors in its own message."""
        try:
            return self._open()
        except StreamgateError as error:
            return error
        except Exception as error:
            if self._options.debug:
                traceback.print_exc()
            return unexpected(error)

    def _open(self) -> Opened:
        from streamgate.config import Config

        options = self._options
        if options.version != __version__:
            raise UsageError(
                f"node {self._host} has streamgate {__version__}, but this machine has {options.version}; install the "
                "same version on all nodes"
            )
        try:
            found = (options.session / PROBE).read_text(encoding="utf-8")
        except OSError:
            found = ""
        if found != options.token:
            raise SinkError(
                f"node {self._host} cannot read {options.session.parent.parent}; with --ray, the output folder must be "
                "on a file system that all nodes share, under the same path"
            )
        if options.debug:
            os.environ["STREAMGATE_DEBUG"] = "1"
        import cv2

        cv2.setNumThreads(options.threads)
        config = Config.model_validate(options.config)
        self._engine = Engine(config, models=options.models, device=options.device)
        self._decode = decoder_name(self._engine.device.index) if options.decode == "cuda" else CPU
        check_decoder(self._decode)
        info = self._engine.run_info()
        self._folder.mkdir()
        self._sink = DiskSink(
            self._folder, info, candidates=config.output.candidates, report=config.output.report, part=True
        )
        self._sink.__enter__()
        return info, self._engine.notes, self._host

    def read(self, index: int, spec: SourceSpec) -> Finished | StreamgateError:
        """Read a source and commit the result. An error that ends the run is returned, not raised, as in `open`."""
        if gone := next((path for path in spec.paths if isinstance(path, Path) and not path.exists()), None):
            result = SourceResult(SourceInfo(spec.location, ""), status="failed")
            result.error = (
                f"{spec.location}: {gone} does not exist on node {self._host}; with --ray, the footage must be on a "
                "file system that all nodes share, or in an object store"
            )
            return result, [], []
        decoding = self._engine.config.decoding
        opened = partial(
            spec.open, threads=self._options.threads, decode=self._decode, max_pixels=decoding.max_pixels,
            time_range=TimeRange(decoding.start_s, decoding.end_s),
        )  # fmt: skip
        progress = self._progress[index] = SourceProgress(index)
        try:
            (result,) = self._engine.run(
                [opened], self._sink, stop=self._stop, progress=progress, labels=[spec.location]
            )
        except (SinkError, DeviceError) as error:
            return error
        finally:
            self._progress.pop(index, None)
        folder = self._folder / result.source.source_id
        names = sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file())
        committed = result.status in ("done", "interrupted")
        return result, names if committed else [], self._engine.notes

    def progress(self) -> list[SourceProgress]:
        """How far each source that is open has been read."""
        return [one for one in list(self._progress.values()) if one.source_id]

    def stop(self) -> None:
        """Stop reading; the results so far are committed."""
        self._stop.set()
