"""`Gate`: the Python API, which the command line uses too."""

from __future__ import annotations

import platform
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from streamgate import __version__
from streamgate.config import Config, load_config
from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import SourceError, UsageError
from streamgate.frames import Array, BestShot, ScoredFace, TrackEnd
from streamgate.networks import Networks
from streamgate.networks.batcher import Batcher, Observer
from streamgate.networks.device import Device
from streamgate.people.in_memory import group_tracks
from streamgate.people.reference import Reference, read_reference
from streamgate.runtime.pipeline import Pipeline, Progress
from streamgate.runtime.watchdog import MARGIN_S, within
from streamgate.scoring.calibration import recorded_measures
from streamgate.scoring.context import ScoringContext
from streamgate.scoring.full_scorer import FullScorer
from streamgate.scoring.stills import score_aligned, score_picture
from streamgate.sinks.base import Sink
from streamgate.sources import Source, discover
from streamgate.sources.arrays import ArrayFrames
from streamgate.sources.base import TimeRange
from streamgate.sources.container import stall_seconds
from streamgate.store.run import IdentityInfo, RunInfo, SourceInfo, SourceResult

Location = str | PathLike[str]
_PROGRESS_S = 0.2


class Gate:
    """Finds the best faces of videos and scores faces of pictures.

    Opening loads the networks once; every call after that shares them. Use it as a context manager.

    Args:
        preset: "studio", "live", "archive" or the path of a TOML file.
        models: "embedded", "standard", "imported" or a folder with weights; several joined by commas.
        device: "auto", "cpu", "cuda" or "cuda:N", or a chosen `networks.device.Device`.
        settings: dotted keys and their values, {"measures.yaw.max": 20}, or `key=value` texts as `--set` takes them.
        config: a whole configuration instead of `preset` and `settings`.
        threads: CPU threads inside one network run.
        observe: told of each network run: role, number of items, seconds; from several threads.

    Raises:
        UsageError: a wrong preset, key or value.
        WeightsError: weights are missing or not what they should be.
        DeviceError: the device is not available.
    """

    def __init__(
        self,
        preset: Location = "studio",
        *,
        models: str = DEFAULT_MODELS,
        device: str | Device = "auto",
        settings: Mapping[str, Any] | Iterable[str] = (),
        config: Config | None = None,
        threads: int = 1,
        observe: Observer | None = None,
    ) -> None:
        if not isinstance(preset, str | PathLike):
            raise UsageError(f"preset takes a name or the path of a TOML file; got {type(preset).__name__}")
        self.config = config or _configured(str(preset), settings)
        own = [spec for spec in recorded_measures(self.config) if spec.card and self.config.measures[spec.name].use]
        precision = self.config.precision.model_dump()
        self._networks = Networks.open(models, device, threads, self.config.advanced.nms_iou, own, precision)
        self._weights = self._networks.weights
        self._batcher = Batcher.over(self._networks, self.config.advanced.low_score, observe=observe)
        try:
            self._context = self.scoring(self.config)
            self._identity_threshold = self.config.identity.threshold or self._networks.identity_threshold
            if self.config.keep.per == "person" and self._identity_threshold is None:
                raise UsageError(
                    "keep.per = person: this recognizer has no identity threshold; give one with "
                    "--set identity.threshold=COSINE"
                )
            self._scorer = FullScorer(self._context)
            self._reference = self._read_reference()
        except BaseException:
            self.close()
            raise
        self._pipeline = Pipeline(self._context, self._reference)

    def run(
        self,
        source: Location | Sequence[Location],
        *,
        sequence_fps: float | None = None,
        progress: Callable[[Progressed], object] | None = None,
    ) -> Iterator[BestShot]:
        """Yield the kept faces of a file, a folder or several of them, each as soon as its track ends.

        With `sequence_fps` the images of a folder are frames at that rate instead of unrelated pictures. `progress` is
        told how far each source is read, a few times a second, from the thread that asks for the next face.
        Raises SourceError for an input that cannot be read (when there are several: the first such, after the
        others).
        """
        for ended in self.tracks(source, sequence_fps=sequence_fps, progress=progress):
            yield from ended.shots

    def feed(
        self, frames: Iterable[Any], *, fps: float | None = None, name: str = "frames"
    ) -> Iterator[BestShot]:
        """Yield the kept faces of your own frames, each as soon as its track ends.

        Args:
            frames: RGB uint8 (H, W, 3) arrays with `fps`, else pairs (seconds, array) whose times rise. They are taken
                one by one, from another thread, a few ahead of what was given out.
            fps: frames a second.
            name: the source's, in the shots.

        Raises UsageError for a frame of another shape or type, SourceError when there is none. The crop `frame` and
        `loose` need a second look at a frame and are left out.
        """
        source = ArrayFrames(frames, name, fps)
        for ended in self._pipeline.tracks(source, SourceResult(SourceInfo(source.location, source.source_id))):
            yield from ended.shots

    def people(self, tracks: Iterable[TrackEnd]) -> dict[str, list[BestShot]]:
        """Who the shots of tracks show: for each person's id its shots, best first, with `person_id`.

        Pass what `tracks` gave, of any number of sources: `gate.people(gate.tracks("footage"))`. Raises UsageError
        where `identity.store` is none, or the recognizer in use has no identity threshold.
        """
        if self.config.identity.store == "none" or self._identity_threshold is None:
            raise UsageError(
                "persons cannot be told apart: set identity.store to session, and identity.threshold where the "
                "recognizer has none"
            )
        return group_tracks(tracks, self._identity_threshold)

    def tracks(
        self,
        source: Location | Sequence[Location],
        *,
        sequence_fps: float | None = None,
        progress: Callable[[Progressed], object] | None = None,
    ) -> Iterator[TrackEnd]:
        """Like `run`, but a whole ended track at a time, those that keep nothing included.

        A source that breaks off after its first frame gives what was found until then, and a warning.
        """
        inputs = _locations(source)
        heard = None if progress is None else _Told(progress)
        found = discover([str(one) for one in inputs], sequence_fps=sequence_fps)
        failed: SourceError | None = None
        decoding = self.config.decoding
        time_range = TimeRange(decoding.start_s, decoding.end_s)
        for item in found.sources:
            opening = partial(item.open, max_pixels=decoding.max_pixels, time_range=time_range)
            try:
                # A disk that never answers must not hang the caller.
                with within(stall_seconds() + MARGIN_S, opening, item.location) as opened:
                    result = SourceResult(SourceInfo(opened.location, opened.source_id))
                    yield from self._pipeline.tracks(opened, result, progress=heard)
                if result.error:
                    warnings.warn(result.error, stacklevel=2)
            except SourceError as error:
                failed = failed or error
        failed = failed or next(iter(found.errors), None)
        if failed is not None:
            raise failed

    def process(
        self,
        sources: Sequence[Callable[[], Source]],
        sink: Sink,
        *,
        jobs: int = 1,
        stop: threading.Event | None = None,
        progress: Progress | None = None,
        labels: Sequence[str] = (),
    ) -> list[SourceResult]:
        """Run many sources into an entered sink; see `Pipeline.run`."""
        return self._pipeline.run(sources, sink, jobs=jobs, stop=stop, progress=progress, labels=labels)

    def score(self, image: Array, *, aligned: str | None = None, full: bool = True) -> list[ScoredFace]:
        """Score the faces of one picture, largest first.

        Args:
            image: RGB uint8 (H, W, 3).
            aligned: "arcface" or "ffhq" when the picture is a ready crop; then nothing is detected, and
                measures that its pixels cannot give are `not_scored`.
            full: score also what already failed the gate.

        Raises UsageError for another shape or type, or an unknown `aligned`.
        """
        if isinstance(image, str | PathLike):
            raise UsageError(
                f"Gate.score takes pixels, not a file name: np.asarray(PIL.Image.open({str(image)!r}).convert('RGB'))"
            )
        picture = np.asarray(image)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise UsageError(
                f"Gate.score takes an RGB picture, uint8 (H, W, 3); got {picture.dtype} {picture.shape}"
            )
        if aligned is None:
            return score_picture(picture, self._scorer, full=full)
        if aligned not in ("arcface", "ffhq"):
            raise UsageError(f'aligned must be "arcface" or "ffhq", got {aligned!r}')
        return [score_aligned(picture, aligned, self._scorer)]

    def follow(self, config: Config, name: str) -> ScoringContext:
        """What a live stream with its own configuration scores with.

        Streams of different `name` take turns at the networks. Raises UsageError when `config` cannot be had with them.
        """
        for key in ("nms_iou", "low_score"):
            if getattr(config.advanced, key) != getattr(self.config.advanced, key):
                raise UsageError(f"stream {name}: advanced.{key} is one for all streams; set it for the whole service")
        if config.precision != self.config.precision:
            raise UsageError(f"stream {name}: precision is one for all streams; set it for the whole service")
        if set(config.output.crops) != {"ffhq"} or config.output.format != "png":
            raise UsageError(
                f"stream {name}: output.crops and output.format are for `run`; streams write FFHQ crops as PNG"
            )
        return self.scoring(config, name)

    def scoring(self, config: Config, name: str = "") -> ScoringContext:
        """What faces are scored with under a configuration; `name` is of a client that takes its turn at the networks.

        Raises UsageError when no measure of its set can rank.
        """
        context = ScoringContext.over(self._networks, config, partial(self._batcher.infer, client=name))
        if not context.evaluator.can_rank:
            whose = f"{name}: " if name else ""
            raise UsageError(
                f"{whose}none of the measures in use that have a weight can be had with these weights; see "
                "`streamgate measures` and `streamgate models list`"
            )
        return context

    def run_info(self) -> RunInfo:
        """What stays the same over a run of this gate, for sinks."""
        evaluator = self._context.evaluator
        config = self.config.model_dump(mode="json")
        if self._reference is not None:
            # By its content: that decides about results, wherever the file lies.
            name = Path(self.config.identity.only).name
            config["identity"]["only"] = f"{name} (sha256 {self._reference.sha256[:16]})"
        return RunInfo(
            config=config,
            measure_set=evaluator.names,
            absent_measures=evaluator.calibration.missing(self.config),
            calibration_id=evaluator.calibration_id,
            weights=tuple(self._weights),
            versions=_versions(),
            device=str(self._networks.device),
            identity=IdentityInfo(self.config.identity.store, self._identity_threshold),
            calibration=evaluator.calibration.summary(),
        )

    def _read_reference(self) -> Reference | None:
        only = self.config.identity.only
        if not only:
            return None
        return read_reference(Path(only), self.score, self._identity_threshold, self._networks.cohort)

    @property
    def device(self) -> Device:
        """Where the networks run."""
        return self._networks.device

    @property
    def on_cuda(self) -> bool:
        """Whether networks run on a GPU, where batches of many pictures pay."""
        return self._networks.bound

    @property
    def notes(self) -> list[str]:
        """What a user should know about the device and the weights in use, one line each; on a GPU it may grow."""
        notes = [f"device: {self._networks.device}", *self._networks.notes]
        if self.config.identity.store != "none" and self._identity_threshold is None:
            notes.append(
                "no persons: this recognizer has no identity threshold; give one with --set identity.threshold=COSINE"
            )
        return notes

    def close(self) -> None:
        """Let go of networks and threads."""
        self._batcher.close()
        self._networks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a source is read: `pts_seconds` of about `duration_seconds` (None: not known), kept faces so far."""

    source: str
    pts_seconds: float
    duration_seconds: float | None
    frames: int
    kept: int


class _Told(Progress):
    """Passes on how a source goes, a few times a second."""

    def __init__(self, told: Callable[[Progressed], object]) -> None:
        self._told = told
        self._last = -1.0

    def advanced(self, source: Source, frames: int, pts_seconds: float, kept: int) -> None:
        now = time.monotonic()
        if now - self._last >= _PROGRESS_S or frames == 1:
            self._last = now
            self._told(Progressed(source.location, pts_seconds, source.duration_seconds, frames, kept))


def _locations(source: Any) -> list[Location]:
    if isinstance(source, str | PathLike):
        return [source]
    if isinstance(source, np.ndarray) or not hasattr(source, "__iter__"):
        raise UsageError(
            f"give a path, or a list of paths; got {type(source).__name__} (pixels go to Gate.score, or to Gate.feed)"
        )
    found = list(source)
    for one in found:
        if not isinstance(one, str | PathLike):
            raise UsageError(f"give paths; got {type(one).__name__} in the list (frames go to Gate.feed)")
    return found


def _configured(preset: str, settings: Any) -> Config:
    if isinstance(settings, Mapping):
        return load_config(preset, flags=settings)
    if isinstance(settings, str) or not hasattr(settings, "__iter__"):
        raise UsageError(f'settings takes a dict, {{"measures.yaw.max": 20}}, or a list of texts; got {settings!r}')
    texts = list(settings)
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f'settings takes a dict or a list of texts "key=value"; got {text!r} in the list')
    return load_config(preset, texts)


def _versions() -> dict[str, str]:
    found = {"streamgate": __version__, "python": platform.python_version()}
    for name in ("av", "numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
