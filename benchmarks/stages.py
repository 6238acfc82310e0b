"""CPU time of one run by stage, for `profile.py`.

    python benchmarks/stages.py CLIP [--preset studio] [--models embedded] [--set key=value] [--plain]

It runs CLIP into a folder that is thrown away and prints one JSON object, a `Profile`. Each stage is a few functions
of the package, wrapped to add up the CPU time of their own thread, without what other stages take inside them; waiting
costs nothing. Threads that Python did not start are the decoder's. --plain wraps nothing: what the hooks cost.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

from contestants import cpu_seconds

from streamgate.defaults import DEFAULT_MODELS

ORDER = (
    "decode", "cuts", "thumbnails", "detect", "track", "regions", "follow, rest", "luma, sharpness", "warps", "refine",
    "pose", "recognizer", "ifqa", "measures", "keep", "choose, rest", "write", "queues, rest",
)  # fmt: skip

_FUNCTIONS = (
    ("streamgate.tracking.cuts", "CutDetector.look", "cuts"),
    ("streamgate.sources.picture", "PlanePicture.thumbnail", "thumbnails"),
    ("streamgate.tracking.tracker", "Tracker.update", "track"),
    ("streamgate.sources.picture", "PlanePicture.region", "regions"),
    ("streamgate.scoring.faces", "FaceScorer._read_pixels", "luma, sharpness"),
    ("streamgate.sources.picture", "PlanePicture.warp", "warps"),
    ("streamgate.networks.pose", "PoseNetwork.run", "pose"),
    ("streamgate.networks.recognizer", "Recognizer.run", "recognizer"),
    ("streamgate.networks.ifqa", "IfqaNetwork.run", "ifqa"),
    ("streamgate.scoring.evaluator", "Evaluator.measures", "measures"),
    ("streamgate.selection.keeper", "Keeper.note", "keep"),
    ("streamgate.selection.keeper", "Keeper.offer", "keep"),
    ("streamgate.selection.keeper", "Keeper.threshold", "keep"),
    ("streamgate.selection.keeper", "Keeper.prune", "keep"),
    ("streamgate.selection.keeper", "Keeper.finish", "keep"),
    ("streamgate.sinks.disk", "_DiskWriter.evaluated", "write"),
    ("streamgate.sinks.disk", "_DiskWriter.track", "write"),
    ("streamgate.sinks.disk", "_DiskWriter.commit", "write"),
    ("streamgate.sinks.disk", "DiskSink.finish", "write"),
)
_GENERATORS = (
    ("streamgate.sources.file", "VideoFile.frames", "decode"),
    ("streamgate.runtime.tracking_stage", "TrackingStage.tracked_frames", "follow, rest"),
    ("streamgate.runtime.selection_stage", "SelectionStage.take", "choose, rest"),
    ("streamgate.runtime.selection_stage", "SelectionStage.finish", "choose, rest"),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """CPU seconds of a run without start-up: the whole, and by stage with the number of calls."""

    seconds: float
    frames: int
    cpu: float
    stages: dict[str, float]
    calls: dict[str, int]


class Stopwatch:
    """Adds up CPU time by stage over all threads; time of a stage inside another counts for the inner one."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.threads = 0.0
        self._mutex = threading.Lock()
        self._local = threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        inner = getattr(self._local, "inner", 0.0)
        self._local.inner = 0.0
        began = time.thread_time()
        try:
            yield
        finally:
            whole = time.thread_time() - began
            own = whole - self._local.inner
            self._local.inner = inner + whole
            with self._mutex:
                self.spent[name] = self.spent.get(name, 0.0) + own
                self.calls[name] = self.calls.get(name, 0) + 1

    def function(self, function: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        """The function, timed under what `name` says of its arguments."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name(*args)):
                return function(*args, **kwargs)

        return timed

    def generator(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The generator function, each of its steps timed."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            steps = function(*args, **kwargs)
            try:
                while True:
                    with self.stage(name):
                        try:
                            item = next(steps)
                        except StopIteration:
                            return
                    yield item
            finally:
                steps.close()

        return timed

    def thread(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """`Thread.run`, with what the whole thread took added to `threads`."""

        @wraps(run)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return run(*args, **kwargs)
            finally:
                with self._mutex:
                    self.threads += time.thread_time() - began

        return timed


@contextmanager
def hooked(watch: Stopwatch) -> Iterator[None]:
    """The package's stages report to `watch` while this is open."""
    from streamgate.networks.detector import Detector
    from streamgate.scoring.faces import REFINE_SIDE

    def looked_at(detector: Any, pictures: Any, *rest: Any) -> str:
        return "refine" if pictures[0].shape[:2] == (REFINE_SIDE, REFINE_SIDE) else "detect"

    undo: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    try:
        put(threading.Thread, "run", watch.thread(threading.Thread.run))
        put(Detector, "detect", watch.function(Detector.detect, looked_at))
        for module, path, stage in _FUNCTIONS:
            owner, name = _place(module, path)
            put(owner, name, watch.function(getattr(owner, name), lambda *_, stage=stage: stage))
        for module, path, stage in _GENERATORS:
            owner, name = _place(module, path)
            put(owner, name, watch.generator(getattr(owner, name), stage))
        yield
    finally:
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)


def _place(module: str, path: str) -> tuple[Any, str]:
    """What holds a function, and its name there. Raises AttributeError when the package has it no more."""
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    getattr(owner, name)
    return owner, name


def measure(clip: Path, preset: str, models: str, settings: list[str], *, plain: bool) -> Profile:
    """Run a clip and say where its CPU time went."""
    from streamgate import Gate
    from streamgate.sinks.disk import DiskSink
    from streamgate.sources import open_source

    watch = Stopwatch()
    with tempfile.TemporaryDirectory(prefix="streamgate-profile-") as folder:
        if plain:
            result, whole, _ = _run(
                Gate(preset, models=models, settings=settings), clip, Path(folder), DiskSink, open_source
            )
            return Profile(result.duration_seconds, result.frames, whole, {}, {})
        with hooked(watch):
            gate = Gate(preset, models=models, settings=settings)
            result, whole, main = _run(gate, clip, Path(folder), DiskSink, open_source)
    stages = dict(watch.spent)
    # The rest of the process is what Python did not start: FFmpeg's threads.
    stages["decode"] = stages.get("decode", 0.0) + max(0.0, whole - main - watch.threads)
    stages["queues, rest"] = max(0.0, whole - sum(stages.values()))
    return Profile(result.duration_seconds, result.frames, whole, stages, watch.calls)


def _run(gate: Any, clip: Path, folder: Path, sink_type: Any, open_source: Any) -> tuple[Any, float, float]:
    """Result, CPU seconds of the process, and of this thread; threads of the gate have ended by then."""
    before, before_here = cpu_seconds(), time.thread_time()
    with gate, sink_type(folder, gate.run_info()) as sink:
        (result,) = gate.process([partial(open_source, clip)], sink)
        if result.status != "done":
            raise ValueError(f"{clip.name}: {result.error or result.status}")
        sink.finish([result], {})
    return result, cpu_seconds() - before, time.thread_time() - before_here


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--preset", default="studio")
    parser.add_argument("--models", default=DEFAULT_MODELS)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--plain", action="store_true", help="without hooks")
    given = parser.parse_args()
    print(json.dumps(asdict(measure(given.clip, given.preset, given.models, given.settings, plain=given.plain))))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
