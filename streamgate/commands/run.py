"""`streamgate run`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from streamgate.commands.progress import RunDisplay
from streamgate.config import load_config
from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import DeliveryError, SourceError
from streamgate.gate import Gate
from streamgate.sinks import Sink, SinkGroup, SourceInfo, SourceResult, open_sink
from streamgate.sinks.courier import RETRY_SECONDS
from streamgate.sinks.disk import DiskSink
from streamgate.sinks.stdout import StdoutSink
from streamgate.sources import discover

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The options of `streamgate run`; `flags` are named flags by configuration key, None where not given."""

    inputs: tuple[str, ...]
    out: Path
    flags: Mapping[str, Any]
    sinks: tuple[str, ...] = ()
    sink_retry_s: float = RETRY_SECONDS
    sequence_fps: float | None = None
    jobs: int = 1
    overwrite: bool = False
    as_json: bool = False
    quiet: bool = False
    device: str = "auto"
    decode: str = "auto"
    preset: str = "studio"
    models: str = DEFAULT_MODELS
    settings: tuple[str, ...] = ()


def run_command(request: RunRequest) -> int:
    """Run the gate over the inputs; returns the exit code. Raises StreamgateError for what stops the whole run."""
    began = time.perf_counter()
    config = load_config(request.preset, request.settings, request.flags)
    found = discover(request.inputs, sequence_fps=request.sequence_fps, output=request.out)
    display = RunDisplay(quiet=request.quiet, total=len(found.sources))
    for warning in found.warnings:
        display.warn(warning)
    if found.skipped:
        display.note(f"{found.skipped} file(s) in the given folders are neither video nor picture: skipped")
    for copy, first in found.duplicates:
        display.warn(f"{copy}: same name and content as {first}; the first one counts")
    for error in found.errors:
        display.error(str(error))
    if not found.sources:
        if not found.errors:
            raise SourceError(
                f"nothing to read in {', '.join(request.inputs)}: name video files, or folders that hold some"
            )
        return SourceError.exit_code

    # Both decode alike, but not to the bit: "auto" stays where results are the same on every machine.
    decode = "cuda" if request.decode == "cuda" else "cpu"
    with _stopping() as stop, Gate(models=request.models, device=request.device, config=config) as gate:
        for note in gate.notes:
            display.note(note)
        info = gate.run_info()
        if info.absent_measures:
            absent = ", ".join(f"{name} ({why})" for name, why in info.absent_measures.items())
            display.note(f"measures left out: {absent}")
        sinks: list[Sink] = [
            DiskSink(
                request.out, info, overwrite=request.overwrite,
                candidates=config.output.candidates, report=config.output.report,
            )
        ]
        sinks += [
            open_sink(
                url, info, retry_seconds=request.sink_retry_s, results=request.out, hurry=stop, say=display.warn
            )
            for url in request.sinks
        ]
        if request.as_json:
            sinks.append(StdoutSink(images=True))
        with SinkGroup(sinks) as sink, display:
            results = gate.process(
                [partial(spec.open, decode=decode) for spec in found.sources],
                sink,
                jobs=request.jobs,
                stop=stop,
                progress=display,
                labels=[spec.location for spec in found.sources],
            )
            results += [
                SourceResult(SourceInfo(error.location or "", ""), status="failed", error=str(error))
                for error in found.errors
            ]
            if stop.is_set():
                display.note("interrupted: what was found until now is written")
            copies = [
                SourceResult(SourceInfo(copy, ""), status="duplicate", error=f"same name and content as {first}")
                for copy, first in found.duplicates
            ]
            undelivered = None
            try:
                sink.finish([*results, *copies], {"seconds": time.perf_counter() - began})
            except DeliveryError as error:
                undelivered = error
        display.table(results, request.out, time.perf_counter() - began)
        if undelivered is not None:
            display.error(str(undelivered))
    return _exit_code(results, interrupted=stop.is_set(), undelivered=undelivered is not None)


def _exit_code(results: Sequence[SourceResult], *, interrupted: bool, undelivered: bool) -> int:
    if interrupted:
        return INTERRUPTED
    if undelivered:
        return DeliveryError.exit_code
    failed = sum(result.status == "failed" for result in results)
    if not failed:
        return 0
    return SourceError.exit_code if failed == len(results) else 1


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; what was found by then is still committed. A second one ends at once."""
    stop = threading.Event()

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
