"""How the parent process of `streamgate run` handles reports from its worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streamgate.commands.messages import InputsFound, RunRequest, RunState
from streamgate.sinks.stdout import print_records
from streamgate.store.lock import Lock
from streamgate.store.run import RunInfo, SourceInfo, SourceResult

if TYPE_CHECKING:
    from streamgate.commands.progress import RunDisplay


class RunMonitor:
    """Updates the state of a run from the reports of its worker, and displays them.

    The worker sends a report as a call of one of these methods: `channel.send(partial(RunMonitor.opening, index=3))`.

    Args:
        files: file descriptors received with the reports; the first belongs to the lock file.
    """

    def __init__(self, request: RunRequest, state: RunState, display: RunDisplay, files: list[int]) -> None:
        self.display = display
        self._request = request
        self._state = state
        self._files = files

    def probing(self, path: str) -> None:
        """A file whose type is not evident from its name is about to be opened."""
        self._state.probing = path

    def found(self, found: InputsFound) -> None:
        """The sources in the inputs were found."""
        self._state.found, self._state.probing = found, None
        self.display.found(found.labels, found.sizes)
        for warning in found.warnings:
            self.display.warn(warning)
        if found.elsewhere:
            self.display.note(f"{found.elsewhere} source(s) belong to other shards and are not read")
        if found.skipped:
            self.display.note(found.skipped)
        for copy, first in found.duplicates:
            self.display.warn(f"{copy}: same name and content as {first}; this copy is not read")
        for error in found.errors:
            self.display.error(str(error))

    def note(self, text: str) -> None:
        """Show a note."""
        self.display.note(text)

    def warn(self, text: str) -> None:
        """Show a warning."""
        self.display.warn(text)

    def debug(self, text: str) -> None:
        """Show a line at the log level "debug"."""
        self.display.debug(text)

    def writing(self) -> None:
        """All sources are read; the run-wide files are being written."""
        self.display.writing()

    def locked(self, info: RunInfo, config: Mapping[str, Any], words: Mapping[str, str]) -> None:
        """The networks are open and the folder is locked. `words` gives the wording of each reason."""
        self._state.info, self._state.config, self._state.words = info, config, words
        self._state.lock = Lock.held(self._request.out, self._files.pop(0))

    def known(self, done: Mapping[int, SourceResult], unfinished: frozenset[int]) -> None:
        """The run is resumed. `done` has results by source index, `unfinished` the indexes of interrupted sources."""
        self._state.results.update(done)
        self._state.last |= unfinished
        if done:
            self.display.skipped(done)
            assert self._state.found is not None
            count = len(self._state.found.labels)
            self.display.note(f"{len(done)} of {count} sources are already done; they are skipped")

    def begun(self) -> None:
        """The output folder now belongs to this run."""
        self._state.begun = True

    def opening(self, index: int) -> None:
        """A source is about to be opened."""
        self._state.reading.add(index)

    def started(self, index: int, source: SourceInfo, estimated_frames: int | None) -> None:
        """A source was opened."""
        self._state.ids[index] = source.source_id
        self.display.started(index, estimated_frames)

    def advanced(self, index: int, frames: int, kept: int) -> None:
        """Reading of a source has progressed."""
        self.display.advanced(index, frames, kept)

    def finished(self, index: int, result: SourceResult) -> None:
        """A source has ended; its results, if any, are committed."""
        state = self._state
        state.idle_deaths = 0
        state.reading.discard(index)
        state.committed.discard(index)
        state.results[index] = result
        self.display.closed(index)
        self.display.finished(index, result)
        if self._request.as_json and result.status in ("done", "interrupted"):
            print_records(self._request.out, result.source.source_id)
