"""What a destination of best shots has to do; disk and Redis are its two members."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from streamgate.store.run import SourceInfo, SourceResult

if TYPE_CHECKING:  # the small parent process of a run knows results, and has no use for numpy
    from streamgate.tracks import Candidate, TrackEnd


class SourceWriter(Protocol):
    """Takes what one source yields; nothing is final before `commit`."""

    def evaluated(self, candidate: Candidate) -> None:
        """A tracked face was evaluated (its measures may be `not_scored`)."""
        ...

    def track(self, ended: TrackEnd) -> None:
        """A track ended; its shots hold the crops."""
        ...

    def commit(self, result: SourceResult) -> None:
        """Make everything of this source final. Raises SinkError."""
        ...

    def discard(self) -> None:
        """Drop what was taken: the source failed or the run stops without it. Never raises."""
        ...


class Sink(Protocol):
    """A destination; opened once a run, as a context manager, before any source is read.

    `open_source` and the writers of different sources may be used from different threads.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def open_source(self, source: SourceInfo) -> SourceWriter: ...

    def finish(self, results: list[SourceResult], timing: Mapping[str, float]) -> None:
        """All sources are done: derive what covers the whole run.

        Raises DeliveryError when a destination could not take everything although the run went on.
        """
        ...
