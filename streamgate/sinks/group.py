"""Several sinks combined into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from streamgate.errors import DeliveryError
from streamgate.sinks.base import Sink, SourceWriter
from streamgate.store.run import SourceInfo, SourceResult

if TYPE_CHECKING:
    from streamgate.tracks import Candidate, TrackEnd


class SinkGroup:
    """Passes everything to each of `sinks` in order; put the most important sink (disk) first.

    When a commit fails, the sinks before the failing one keep the source; the failing sink and those after it drop it.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for sink in self._sinks:
                stack.enter_context(sink)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def open_source(self, source: SourceInfo) -> SourceWriter:
        writers: list[SourceWriter] = []
        try:
            for sink in self._sinks:
                writers.append(sink.open_source(source))
        except BaseException:
            for writer in writers:
                writer.discard()
            raise
        return _GroupWriter(writers)

    def finish(self, results: list[SourceResult], timing: Mapping[str, float]) -> None:
        """Finish all sinks, then raise DeliveryError for those that did not receive everything."""
        missing: list[str] = []
        for sink in self._sinks:
            try:
                sink.finish(results, timing)
            except DeliveryError as error:
                missing.append(str(error))
        if missing:
            raise DeliveryError("; ".join(missing))


class _GroupWriter:
    def __init__(self, writers: Sequence[SourceWriter]) -> None:
        self._writers = writers

    def evaluated(self, candidate: Candidate) -> None:
        for writer in self._writers:
            writer.evaluated(candidate)

    def track(self, ended: TrackEnd) -> None:
        for writer in self._writers:
            writer.track(ended)

    def commit(self, result: SourceResult) -> None:
        for position, writer in enumerate(self._writers):
            try:
                writer.commit(result)
            except BaseException:
                for rest in self._writers[position:]:
                    rest.discard()
                raise

    def discard(self) -> None:
        for writer in self._writers:
            writer.discard()
