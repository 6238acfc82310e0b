"""The parent process of `streamgate run`.

The parent starts the worker that does all the work (`streamgate.commands.worker`), shows its progress, and starts
another worker if the first one dies. The parent imports nothing heavy, so it needs little memory and is unlikely to
crash itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamgate.commands.messages import RunRequest, RunState, WorkerEnded
from streamgate.commands.monitor import RunMonitor
from streamgate.commands.signals import INTERRUPTED, handling
from streamgate.errors import DeliveryError, SourceError, StreamgateError, display, unexpected
from streamgate.runtime.processes import STOP_SIGNALS, Channel, Worker
from streamgate.store.folder import RunFolder
from streamgate.store.run import SourceInfo, SourceResult

if TYPE_CHECKING:
    from streamgate.commands.progress import RunDisplay

FAILED = ("failed", "crashed")
_DEATHS = 2
"""A source is skipped after the worker has died this many times while reading it."""


def run_with_worker(request: RunRequest) -> int:
    """Run the gate over the inputs; returns the exit code. Raises StreamgateError for errors that end the whole run.

    Ctrl-C and SIGTERM end the run; the results so far are still committed. A second signal ends the run immediately.
    """
    run = _Run(request)
    with handling(STOP_SIGNALS, lambda number, frame: run.interrupt()):
        return run.run()


class _Run:
    """One run in the parent process: starts and replaces workers, and follows their reports."""

    def __init__(self, request: RunRequest) -> None:
        self._request = request
        self._state = RunState(began=time.perf_counter())
        self._worker: Worker | None = None
        self._stopping = False

    def interrupt(self) -> None:
        """End the run and keep the results so far; the second call ends it immediately. For signal handlers."""
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        if self._worker is not None:
            self._worker.stop()

    def run(self) -> int:
        worker = self._start()
        # Imported here so that parent and worker import in parallel.
        from streamgate.commands.progress import RunDisplay

        with RunDisplay(self._request.log_level) as display:
            try:
                ended = self._follow(worker, display)
            except BaseException:
                self._close(display)
                raise
            finally:
                display.stop()
            found = self._state.found
            assert found is not None
            if not found.labels and not found.elsewhere:
                if not found.errors:
                    raise SourceError(
                        f"nothing to read in {', '.join(self._request.inputs)}: give video files, or folders that "
                        "contain video files"
                    )
                return SourceError.exit_code
            results = self._state.all_results()
            if ended.interrupted:
                display.note("interrupted: the results so far have been written")
            display.table(results, self._request.out, time.perf_counter() - self._state.began, self._state.words)
            if ended.undelivered is not None:
                display.error(ended.undelivered)
        return _exit_code(results, ended)

    def _start(self) -> Worker:
        def run_worker(line: Channel) -> None:
            try:
                # Imported only in the worker.
                from streamgate.commands.worker import run_worker
            except ImportError as error:
                line.send(WorkerEnded(unexpected(error)))
                return
            run_worker(self._request, self._state, line)

        self._worker = Worker.start(run_worker, stopping=self._stopping)
        if self._stopping:
            self._worker.stop()
        return self._worker

    def _follow(self, worker: Worker, display: RunDisplay) -> WorkerEnded:
        """Receive messages from the worker and its replacements; returns how the last worker ended.

        Raises StreamgateError if a worker could not continue, SinkError if standard output is closed.
        """
        monitor = RunMonitor(self._request, self._state, display, worker.files)
        while True:
            try:
                for message in worker.recv(display.wait_s):
                    if isinstance(message, WorkerEnded):
                        worker.wait()
                        if message.error is not None:
                            raise message.error
                        return message
                    message(monitor)  # calls one of the monitor's methods
                display.refresh()
            except EOFError:
                how = worker.wait()
                found = self._state.found
                if found is not None and not found.labels and not found.elsewhere:
                    return WorkerEnded()
                self._after_death(how or "it exited unexpectedly", monitor)
                worker = self._start()
                monitor = RunMonitor(self._request, self._state, display, worker.files)

    def _after_death(self, how: str, monitor: RunMonitor) -> None:
        """Update the state after a worker died before it had finished; `how` describes how it died.

        Raises StreamgateError if a new worker would not get any further.
        """
        state = self._state
        if self._stopping:
            if not state.begun:
                raise KeyboardInterrupt
            state.closing = True
        if (probing := state.probing) is not None:
            state.failed_probes.add(probing)
            state.probing = None
            monitor.warn(
                f"the worker process died ({how}) while it opened {display(probing)} to detect its type; "
                "the file is skipped"
            )
            return
        for index in state.reading:
            monitor.display.closed(index)
        state.committed |= {index for index in state.reading if self._is_committed(index)}
        suspects = sorted(state.reading - state.committed)
        state.reading.clear()
        state.idle_deaths = 0 if suspects else state.idle_deaths + 1
        if state.idle_deaths >= _DEATHS:
            raise StreamgateError(
                f"the worker process died {_DEATHS} times without reading anything ({_likely_cause(how)})"
            )
        labels = state.found.labels if state.found is not None else ()
        for index in suspects:
            state.deaths[index] = state.deaths.get(index, 0) + 1
            state.last.add(index)
        if state.closing:
            return
        guilty = [index for index in suspects if state.deaths[index] >= _DEATHS]
        if again := [labels[index] for index in suspects if index not in guilty]:
            text = f"the worker process died ({how}) while it read {', '.join(again)}"
            monitor.warn(f"{text}; a new worker takes over and reads these sources last, one at a time")
        elif not guilty:
            monitor.warn(f"the worker process died ({how}); a new worker takes over")
        for index in guilty:
            result = SourceResult(SourceInfo(labels[index], state.ids.get(index, "")), status="crashed")
            result.error = (
                f"{labels[index]}: the worker process died {_DEATHS} times while it read this source "
                f"({_likely_cause(how)}); the source is skipped"
            )
            monitor.finished(index, result)

    def _is_committed(self, index: int) -> bool:
        """Whether a source was committed although its worker died before it could report that."""
        source_id = self._state.ids.get(index)
        result = None if source_id is None else RunFolder(self._request.out).result(source_id)
        return result is not None and result.status == "done"

    def _close(self, display: RunDisplay) -> None:
        """End the worker; if it had committed sources, a new worker writes the run-wide files."""
        worker = self._worker
        if worker is not None:
            worker.kill()
            died = worker.wait()
            if died and self._state.begun and not self._state.closing:
                self._state.closing = True
                display.stop()
                self._end(self._start())

    def _end(self, worker: Worker) -> None:
        try:
            while not any(isinstance(message, WorkerEnded) for message in worker.recv()):
                pass
        except EOFError:
            pass  # the run-wide files can be derived again from the committed sources
        finally:
            worker.kill()
            worker.wait()


def _likely_cause(how: str) -> str:
    if "SIGKILL" in how:
        return f"{how}: the most likely cause is a lack of memory; close other programs or lower --jobs"
    return f"{how}; please report this crash"


def _exit_code(results: Sequence[SourceResult], ended: WorkerEnded) -> int:
    if ended.interrupted:
        return INTERRUPTED
    if ended.undelivered is not None:
        return DeliveryError.exit_code
    failed = sum(result.status in FAILED for result in results)
    if not failed:
        return 0
    return SourceError.exit_code if failed == len(results) else 1
