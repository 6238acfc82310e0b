"""The engine behind `Gate` and the commands: the networks of a run, opened once, and everything that shares them."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

from streamgate import __version__
from streamgate.config import Config
from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import UsageError
from streamgate.faces import ScoredFace
from streamgate.frames import Array
from streamgate.networks import Networks
from streamgate.networks.batcher import Batcher, Observer
from streamgate.networks.device import Device
from streamgate.people.reference import Reference, read_reference
from streamgate.runtime.pipeline import Advanced, Pipeline, Progress
from streamgate.scoring.calibration import recorded_measures
from streamgate.scoring.context import ScoringContext
from streamgate.scoring.full_scorer import FullScorer
from streamgate.scoring.stills import score_aligned, score_picture
from streamgate.sinks.base import Sink
from streamgate.sources import Source
from streamgate.store.run import IdentityInfo, RunInfo, SourceResult
from streamgate.tracks import TrackEnd


class Engine:
    """The networks of one configuration, the pipeline that uses them, and scoring contexts for other configurations.

    Thread-safe once opened. Use it as a context manager.

    Args:
        config: the whole configuration.
        models: "embedded", "open", "standard", "imported" or a folder with weights; join several with commas.
        device: "auto", "cpu", "cuda" or "cuda:N", or a `networks.device.Device`.
        threads: CPU threads inside one network run.
        observe: called after each network run, from several threads, with role, number of items and seconds.

    Raises:
        UsageError: the weights cannot provide what the configuration asks for.
        WeightsError: weights are missing or wrong.
        DeviceError: the device is not available.
    """

    def __init__(
        self,
        config: Config,
        *,
        models: str = DEFAULT_MODELS,
        device: str | Device = "auto",
        threads: int = 1,
        observe: Observer | None = None,
    ) -> None:
        self.config = config
        own = [spec for spec in recorded_measures(config) if spec.card and config.measures[spec.name].use]
        precision = config.precision.model_dump()
        self._networks = Networks.open(models, device, threads, config.advanced.nms_iou, own, precision)
        self._weights = self._networks.weights
        self._batcher = Batcher.over(self._networks, config.advanced.low_score, observe=observe)
        try:
            self._context = self.context(config)
            if config.keep.per == "person" and self.identity_threshold is None:
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

    @property
    def identity_threshold(self) -> float | None:
        """The minimum cosine similarity of two faces of one person; None if the recognizer has no threshold."""
        return self._context.identity_threshold

    @property
    def device(self) -> Device:
        """Where the networks run."""
        return self._networks.device

    @property
    def on_gpu(self) -> bool:
        """Whether networks run on a GPU, where large batches pay off."""
        return self._networks.bound

    @property
    def notes(self) -> list[str]:
        """Notes for the user about device and weights, one line each; on a GPU, more may be added during a run."""
        notes = [f"device: {self._networks.device}", *self._networks.notes]
        if self.config.identity.store != "none" and self.identity_threshold is None:
            notes.append(
                "persons cannot be distinguished: this recognizer has no identity threshold; give one with "
                "--set identity.threshold=COSINE"
            )
        return notes

    def run(
        self,
        sources: Sequence[Callable[[], Source]],
        sink: Sink,
        *,
        jobs: int = 1,
        stop: threading.Event | None = None,
        progress: Progress | None = None,
        labels: Sequence[str] = (),
    ) -> list[SourceResult]:
        """Process many sources and write the results to a sink that is already entered; see `Pipeline.run`."""
        return self._pipeline.run(sources, sink, jobs=jobs, stop=stop, progress=progress, labels=labels)

    def tracks(
        self,
        source: Source,
        result: SourceResult,
        *,
        advanced: Advanced = lambda source, frames, pts_seconds, kept: None,
    ) -> Iterator[TrackEnd]:
        """Yield the tracks of an opened source as they end; see `Pipeline.tracks`."""
        return self._pipeline.tracks(source, result, advanced=advanced)

    def score(self, image: Array, *, aligned: str | None = None, full: bool = True) -> list[ScoredFace]:
        """Score the faces of one picture, RGB uint8 (H, W, 3); see `Gate.score`."""
        if aligned is None:
            return score_picture(image, self._scorer, full=full)
        return [score_aligned(image, aligned, self._scorer)]

    def context(self, config: Config, client: str = "") -> ScoringContext:
        """The scoring context of a configuration. Clients with different names take turns in using the networks.

        Raises UsageError if no measure in the set can be used for ranking.
        """
        context = ScoringContext.over(self._networks, config, partial(self._batcher.infer, client=client))
        if not context.evaluator.can_rank:
            prefix = f"{client}: " if client else ""
            raise UsageError(
                f"{prefix}these network weights provide none of the measures that count for quality; see "
                "`streamgate measures` and `streamgate models list`"
            )
        return context

    def stream_context(self, config: Config, name: str) -> ScoringContext:
        """The scoring context of a live stream with its own configuration.

        Raises UsageError if `config` does not fit the opened networks.
        """
        for key in ("nms_iou", "low_score"):
            if getattr(config.advanced, key) != getattr(self.config.advanced, key):
                raise UsageError(
                    f"stream {name}: advanced.{key} must be the same for all streams; set it for the whole service"
                )
        if config.precision != self.config.precision:
            raise UsageError(
                f"stream {name}: precision must be the same for all streams; set it for the whole service"
            )
        if set(config.output.crops) != {"ffhq"} or config.output.format != "png":
            raise UsageError(
                f"stream {name}: output.crops and output.format are only for `run`; streams write FFHQ crops as PNG"
            )
        return self.context(config, name)

    def run_info(self) -> RunInfo:
        """The constant properties of a run of this engine, for sinks."""
        evaluator = self._context.evaluator
        config = self.config.model_dump(mode="json")
        if self._reference is not None:
            # Record a hash of the picture, whose content affects the results, and not its path.
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
            identity=IdentityInfo(self.config.identity.store, self.identity_threshold),
            calibration=evaluator.calibration.summary(),
        )

    def _read_reference(self) -> Reference | None:
        only = self.config.identity.only
        if not only:
            return None
        return read_reference(Path(only), self.score, self.identity_threshold, self._networks.cohort)

    def close(self) -> None:
        """Release networks and threads."""
        self._batcher.close()
        self._networks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _versions() -> dict[str, str]:
    found = {"streamgate": __version__, "python": platform.python_version()}
    for name in ("av", "numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
