"""`Gate`: the Python API, which the command line uses too."""

from __future__ import annotations

import platform
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from streamgate.networks.batcher import Observer
from streamgate.people.reference import Reference, read_reference
from streamgate.quality.calibration import Calibration, calibration_id, measure_set
from streamgate.runtime.inference import Inference, calibration_of, sampled_head
from streamgate.runtime.pipeline import Pipeline, Progress
from streamgate.runtime.scoring import FaceScorer
from streamgate.runtime.stills import score_aligned, score_picture
from streamgate.runtime.watchdog import MARGIN_S, within
from streamgate.selection.steps import Infer, run_together
from streamgate.sinks.base import Sink
from streamgate.sources import Source, discover
from streamgate.sources.container import stall_seconds
from streamgate.store.run import IdentityInfo, RunInfo, SourceInfo, SourceResult

Location = str | PathLike[str]


class Gate:
    """Finds the best faces of videos and scores faces of pictures.

    Opening loads the networks once; every call after that shares them. Use it as a context manager.

    Args:
        preset: "studio", "live", "archive" or the path of a TOML file.
        models: "embedded", "standard" or a folder with weights.
        device: "auto", "cpu", "cuda" or "cuda:N".
        settings: `key=value` texts as `--set` takes them, for example "gate.max_yaw=20".
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
        device: str = "auto",
        settings: Iterable[str] = (),
        config: Config | None = None,
        threads: int = 1,
        observe: Observer | None = None,
    ) -> None:
        if isinstance(settings, str):
            raise UsageError(f'settings takes a list of texts: write settings=["{settings}"]')
        self.config = config or load_config(str(preset), settings)
        networks = Networks.open(models, device, threads, self.config.detection.nms_iou)
        calibration = calibration_of(networks, self.config)
        self._weights = networks.weights
        self._fallbacks = networks.fallbacks
        self._absent = {name: str(status) for name, status in calibration.absent.items()}
        self._names = measure_set(self.config, calibration)
        if not any(getattr(self.config.fusion, name) > 0 for name in self._names):
            networks.close()
            raise UsageError(
                "no measure that counts can be had with these weights; see measures.set and `streamgate models list`"
            )
        self._calibration_id = calibration_id(self.config, calibration)
        self._identity_threshold = self.config.identity.threshold or networks.identity_threshold
        self._calibration = calibration
        if self.config.keep.per == "person" and self._identity_threshold is None:
            networks.close()
            raise UsageError(
                "keep.per = person: from which likeness this recognizer means one person is not known; "
                "--set identity.threshold=COSINE says it"
            )
        self._inference = Inference(networks, self.config.tracking.low_score, observe)
        self._scorer = self._scorer_of(self.config, calibration)
        self._reference: Reference | None = None
        if self.config.identity.only:
            try:
                self._reference = read_reference(Path(self.config.identity.only), self.score, self._identity_threshold)
            except BaseException:
                self.close()
                raise
        self._pipeline = Pipeline(self.config, self._scorer, self._inference, self._calibration_id, self._reference)

    def run(
        self, source: Location | Sequence[Location], *, sequence_fps: float | None = None
    ) -> Iterator[BestShot]:
        """Yield the kept faces of a file, a folder or several of them, each as soon as its track ends.

        With `sequence_fps` the images of a folder are frames at that rate instead of unrelated pictures.
        Raises SourceError for an input that cannot be read (when there are several: the first such, after the
        others).
        """
        for ended in self.tracks(source, sequence_fps=sequence_fps):
            yield from ended.shots

    def tracks(
        self, source: Location | Sequence[Location], *, sequence_fps: float | None = None
    ) -> Iterator[TrackEnd]:
        """Like `run`, but a whole ended track at a time, those that keep nothing included.

        A source that breaks off after its first frame gives what was found until then, and a warning.
        """
        inputs = [source] if isinstance(source, str | PathLike) else list(source)
        found = discover([str(one) for one in inputs], sequence_fps=sequence_fps)
        failed: SourceError | None = None
        for item in found.sources:
            opening = partial(item.open, max_pixels=self.config.decoding.max_pixels)
            try:
                # A disk that never answers must not hang the caller.
                with within(stall_seconds() + MARGIN_S, opening, item.location) as opened:
                    result = SourceResult(SourceInfo(opened.location, opened.source_id))
                    yield from self._pipeline.tracks(opened, result)
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
        picture = np.asarray(image)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise UsageError(
                f"Gate.score takes an RGB picture, uint8 (H, W, 3); got {picture.dtype} {picture.shape}"
            )
        if aligned is None:
            return score_picture(picture, self._scorer, self._inference, self.config, full=full)
        if aligned not in ("arcface", "ffhq"):
            raise UsageError(f'aligned must be "arcface" or "ffhq", got {aligned!r}')
        faces: list[ScoredFace] = []
        run_together([score_aligned(picture, aligned, self._scorer, faces)], self._inference)
        return faces

    def follow(self, config: Config, name: str) -> tuple[FaceScorer, Infer, str]:
        """What a live stream with its own configuration needs of this gate's networks.

        Returns the scorer, a way to the networks on which streams of different `name` take turns, and the
        calibration id. Raises UsageError when `config` cannot be had with these weights.
        """
        for key in ("detection.nms_iou", "tracking.low_score"):
            section, _, leaf = key.partition(".")
            if getattr(getattr(config, section), leaf) != getattr(getattr(self.config, section), leaf):
                raise UsageError(f"stream {name}: {key} is one for all streams; set it for the whole service")
        if set(config.output.crops) != {"ffhq"} or config.output.format != "png":
            raise UsageError(
                f"stream {name}: output.crops and output.format are for `run`; streams write FFHQ crops as PNG"
            )
        return self.scoring(config, name)

    def scoring(self, config: Config, name: str) -> tuple[FaceScorer, Infer, str]:
        """`follow` without a stream: for faces that were found before, whose pictures the caller writes."""
        calibration = calibration_of(self._inference.networks, config)
        if not any(getattr(config.fusion, one) > 0 for one in measure_set(config, calibration)):
            raise UsageError(f"{name}: no measure that counts can be had with these weights; see measures.set")
        return self._scorer_of(config, calibration), self._inference.party(name), calibration_id(config, calibration)

    def run_info(self) -> RunInfo:
        """What stays the same over a run of this gate, for sinks."""
        config = self.config.model_dump(mode="json")
        if self._reference is not None:
            # By its content: that decides about results, wherever the file lies.
            name = Path(self.config.identity.only).name
            config["identity"]["only"] = f"{name} (sha256 {self._reference.sha256[:16]})"
        return RunInfo(
            config=config,
            measure_set=self._names,
            absent_measures={name: self._absent[name] for name in self.config.measures.set if name in self._absent},
            calibration_id=self._calibration_id,
            weights=tuple(_as_mapping(record) for record in self._weights),
            versions=_versions(),
            identity=IdentityInfo(self.config.identity.store, self._identity_threshold),
            calibration=self._calibration.summary(),
        )

    def _scorer_of(self, config: Config, calibration: Calibration) -> FaceScorer:
        networks = self._inference.networks
        return FaceScorer(
            config,
            calibration,
            sampled_head(networks, config),
            aligned_pose=networks.pose.aligned,
            shared_pose=networks.shared_pose,
        )

    @property
    def notes(self) -> list[str]:
        """What a user should know about the weights in use, a line each."""
        notes = [f"{one.role}: no {one.wanted} weights, using the {one.used} ones" for one in self._fallbacks]
        if self.config.identity.store != "none" and self._identity_threshold is None:
            notes.append(
                "no persons: from which likeness this recognizer means one person is not known; "
                "--set identity.threshold=COSINE says it"
            )
        return notes

    def close(self) -> None:
        """Let go of networks and threads."""
        self._inference.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _as_mapping(record: Any) -> Mapping[str, Any]:
    from dataclasses import asdict

    return asdict(record)


def _versions() -> dict[str, str]:
    found = {"streamgate": __version__, "python": platform.python_version()}
    for name in ("av", "numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
