"""The parent process of `streamgate run`.

It starts the worker that does everything (`streamgate.commands.worker`), shows how it goes, and starts another one
when it dies. It imports nothing heavy: it costs little memory and can hardly die itself.
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
"""A source that was being read at so many deaths of the worker is given up."""


def run_with_worker(request: RunRequest) -> int:
    """Run the gate over the inputs; returns the exit code. Raises StreamgateError for what stops the whole run.

    Ctrl-C and SIGTERM end the run; what was found by then is still committed. A second one ends it at once.
    """
    run = _Run(request)
    with handling(STOP_SIGNALS, lambda number, frame: run.interrupt()):
        return run.run()


class _Run:
    """One run as its parent sees it."""

    def __init__(self, request: RunRequest) -> None:
        self._request = request
        self._state = RunState(began=time.perf_counter())
        self._worker: Worker | None = None
        self._stopping = False

    def interrupt(self) -> None:
        """End the run and keep what was found; when asked again, at once. For signal handlers."""
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        if self._worker is not None:
            self._worker.stop()

    def run(self) -> int:
        worker = self._start()
        # Imported while the worker imports its own.
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
                        f"nothing to read in {', '.join(self._request.inputs)}: name video files, or folders that "
                        "hold some"
                    )
                return SourceError.exit_code
            results = self._state.all_results()
            if ended.interrupted:
                display.note("interrupted: what was found until now is written")
            display.table(results, self._request.out, time.perf_counter() - self._state.began, self._state.words)
            if ended.undelivered is not None:
                display.error(ended.undelivered)
        return _exit_code(results, ended)

    def _start(self) -> Worker:
        def run_worker(line: Channel) -> None:
            try:
                # Imported in the worker alone.
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
        """Hear the worker out, and those that take over; how it ended.

        Raises StreamgateError for what one of them could not go on with, SinkError when standard output is closed.
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
                    message(monitor)  # a call of one of its methods
                display.refresh()
            except EOFError:
                how = worker.wait()
                found = self._state.found
                if found is not None and not found.labels and not found.elsewhere:
                    return WorkerEnded()
                self._after_death(how or "it ended by itself", monitor)
                worker = self._start()
                monitor = RunMonitor(self._request, self._state, display, worker.files)

    def _after_death(self, how: str, monitor: RunMonitor) -> None:
        """Decide what follows from the end of a worker that had not finished; `how` says how it died.

        Raises StreamgateError when another one would not get further.
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
                f"the worker process died ({how}) while it opened {display(probing)} to see what it is; it is left out"
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
            monitor.warn(f"{text}; it is started again, and what it read comes last, one at a time")
        elif not guilty:
            monitor.warn(f"the worker process died ({how}); it is started again")
        for index in guilty:
            result = SourceResult(SourceInfo(labels[index], state.ids.get(index, "")), status="crashed")
            result.error = (
                f"{labels[index]}: the worker process died {_DEATHS} times while it read this ({_likely_cause(how)}); "
                "it is left out"
            )
            monitor.finished(index, result)

    def _is_committed(self, index: int) -> bool:
        """Whether a source was committed although its worker died before it could report it."""
        source_id = self._state.ids.get(index)
        result = None if source_id is None else RunFolder(self._request.out).result(source_id)
        return result is not None and result.status == "done"

    def _close(self, display: RunDisplay) -> None:
        """End the worker; what it had committed gets its end from another one."""
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
            pass  # the committed sources can be derived again
        finally:
            worker.kill()
            worker.wait()


def _likely_cause(how: str) -> str:
    if "SIGKILL" in how:
        return f"{how}: most often because memory ran out; close other programs or lower --jobs"
    return f"{how}; please report it"


def _exit_code(results: Sequence[SourceResult], ended: WorkerEnded) -> int:
    if ended.interrupted:
        return INTERRUPTED
    if ended.undelivered is not None:
        return DeliveryError.exit_code
    failed = sum(result.status in FAILED for result in results)
    if not failed:
        return 0
    return SourceError.exit_code if failed == len(results) else 1
