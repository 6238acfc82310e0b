"""The interface of a destination for best shots, implemented for disk and Redis."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from streamgate.store.run import SourceInfo, SourceResult

if TYPE_CHECKING:  # keeps numpy out of the small parent process of a run, which only handles results
    from streamgate.tracks import Candidate, TrackEnd


class SourceWriter(Protocol):
    """Takes the results of one source; nothing is final before `commit`."""

    def evaluated(self, candidate: Candidate) -> None:
        """A tracked face was evaluated (its measures may be `not_scored`)."""
        ...

    def track(self, ended: TrackEnd) -> None:
        """A track ended; its shots hold the crops."""
        ...

    def commit(self, result: SourceResult) -> None:
        """Make all results of this source final. Raises SinkError."""
        ...

    def discard(self) -> None:
        """Drop everything received so far, because the source failed or the run stops before the source is complete.
        Never raises."""
        ...


class Sink(Protocol):
    """A destination; opened once per run, as a context manager, before any source is read.

    `open_source` and the writers of different sources may be used from different threads.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def open_source(self, source: SourceInfo) -> SourceWriter: ...

    def finish(self, results: list[SourceResult], timing: Mapping[str, float]) -> None:
        """Derive the results that cover the whole run; called after all sources are done.

        Raises DeliveryError if the destination has not accepted all results although the run continued.
        """
        ...
