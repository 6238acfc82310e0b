"""`Gate`: the public Python API."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Self

import numpy as np

from streamgate.config import Config, load_config
from streamgate.defaults import DEFAULT_MODELS
from streamgate.engine import Engine
from streamgate.errors import SourceError, UsageError
from streamgate.faces import ScoredFace
from streamgate.frames import Array
from streamgate.people.in_memory import group_tracks
from streamgate.runtime.watchdog import MARGIN_S, within
from streamgate.sources import Source, discover
from streamgate.sources.arrays import ArrayFrames
from streamgate.sources.base import TimeRange
from streamgate.sources.container import stall_seconds
from streamgate.store.run import SourceInfo, SourceResult
from streamgate.tracks import BestShot, TrackEnd

Location = str | PathLike[str]


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """How far a source has been read.

    Attributes:
        source: the path as it was given, or as it was found in a folder.
        pts_seconds: time of the last frame, in seconds from the start of the source.
        duration_seconds: the total length in seconds according to the file; None if the file does not state it.
        frames: frames read so far.
        kept: kept faces so far.
    """

    source: str
    pts_seconds: float
    duration_seconds: float | None
    frames: int
    kept: int


class Gate:
    """Finds the best faces in videos and scores faces in pictures.

    Creating a Gate loads the networks once; all later calls share them. Use it as a context manager, or call `close`.

    Args:
        preset: "studio", "live", "archive" or the path of a TOML file.
        models: "embedded", "open", "standard", "imported" or a folder with weights; join several with commas.
        device: "auto", "cpu", "cuda" or "cuda:N".
        settings: a mapping of dotted keys to values, such as {"measures.yaw.max": 20}, or `key=value` strings as for
            `--set`.
        threads: CPU threads inside one network run.

    Raises:
        UsageError: a wrong preset, key or value.
        WeightsError: weights are missing or wrong.
        DeviceError: the device is not available.
    """

    def __init__(
        self,
        preset: Location = "studio",
        *,
        models: str = DEFAULT_MODELS,
        device: str = "auto",
        settings: Mapping[str, Any] | Iterable[str] = (),
        threads: int = 1,
    ) -> None:
        if not isinstance(preset, str | PathLike):
            raise UsageError(f"preset takes a name or the path of a TOML file; got {type(preset).__name__}")
        self._config = configured(preset, settings)
        self._engine = Engine(self._config, models=models, device=device, threads=threads)

    def run(
        self,
        source: Location | Sequence[Location],
        *,
        sequence_fps: float | None = None,
        progress: Callable[[ProgressUpdate], object] | None = None,
    ) -> Iterator[BestShot]:
        """Yield the kept faces of one or more files or folders, each face as soon as its track ends.

        Args:
            source: a path, or a list of paths.
            sequence_fps: read the images of a folder as frames at this rate; by default, they are unrelated.
            progress: called up to ten times per second with the progress in the source, in the thread that requests the
                next face.

        Raises:
            UsageError: `source` is neither a path nor a list of paths.
            SourceError: an input cannot be read. If there are several inputs, the first error is raised after all other
                inputs have been read.
            DeviceError: the GPU fails.
        """
        for ended in self.tracks(source, sequence_fps=sequence_fps, progress=progress):
            yield from ended.shots

    def tracks(
        self,
        source: Location | Sequence[Location],
        *,
        sequence_fps: float | None = None,
        progress: Callable[[ProgressUpdate], object] | None = None,
    ) -> Iterator[TrackEnd]:
        """Like `run`, but yields each track when it has ended, including tracks without kept faces.

        If a source fails after its first frame, the tracks found so far are yielded and a warning is issued.
        """
        inputs = _locations(source)

        def report(source: Source, frames: int, pts_seconds: float, kept: int) -> None:
            if progress is not None:
                progress(ProgressUpdate(source.location, pts_seconds, source.duration_seconds, frames, kept))

        found = discover([str(one) for one in inputs], sequence_fps=sequence_fps)
        failed: SourceError | None = None
        decoding = self._config.decoding
        time_range = TimeRange(decoding.start_s, decoding.end_s)
        for item in found.sources:
            opening = partial(item.open, max_pixels=decoding.max_pixels, time_range=time_range)
            try:
                # A disk that does not respond must not block the caller forever.
                with within(stall_seconds() + MARGIN_S, opening, item.location) as opened:
                    result = SourceResult(SourceInfo(opened.location, opened.source_id))
                    yield from self._engine.tracks(opened, result, advanced=report)
                if result.error:
                    warnings.warn(result.error, stacklevel=2)
            except SourceError as error:
                failed = failed or error
        failed = failed or next(iter(found.errors), None)
        if failed is not None:
            raise failed

    def feed(
        self, frames: Iterable[Any], *, fps: float | None = None, name: str = "frames"
    ) -> Iterator[BestShot]:
        """Yield the kept faces of frames that you pass as arrays, each face as soon as its track ends.

        The crops `frame` and `loose` would need access to earlier frames and are left out.

        Args:
            frames: RGB uint8 (H, W, 3) arrays with `fps`, otherwise pairs (seconds, array) with increasing times. They
                are consumed one by one, in another thread, a few frames ahead of the yielded shots.
            fps: frames per second.
            name: the name of the source in the shots.

        Raises:
            UsageError: a frame has another shape or type, or a time does not increase.
            SourceError: there are no frames.
        """
        source = ArrayFrames(frames, name, fps)
        for ended in self._engine.tracks(source, SourceResult(SourceInfo(source.location, source.source_id))):
            yield from ended.shots

    def people(self, tracks: Iterable[TrackEnd]) -> dict[str, list[BestShot]]:
        """Group the shots of tracks by person; returns, by person id, the shots, best first and with `person_id` set.

        Pass the tracks that `Gate.tracks` yields for any number of sources: `gate.people(gate.tracks("footage"))`.
        Raises UsageError if `identity.store` is none or the recognizer in use has no identity threshold.
        """
        threshold = self._engine.identity_threshold
        if self._config.identity.store == "none" or threshold is None:
            raise UsageError(
                "persons cannot be distinguished: set identity.store to session, and identity.threshold if the "
                "recognizer has no threshold"
            )
        return group_tracks(tracks, threshold)

    def score(self, image: Array, *, aligned: str | None = None, full: bool = True) -> list[ScoredFace]:
        """Score the faces of one picture, largest first.

        Args:
            image: RGB uint8 (H, W, 3).
            aligned: "arcface" or "ffhq" if the picture is an aligned crop. In that case, faces are not detected, and
                measures that cannot be computed from a crop are `not_scored`.
            full: compute all measures even for faces that have already failed the gate.

        Raises UsageError for a picture of another shape or type, or for an unknown value of `aligned`.
        """
        if isinstance(image, str | PathLike):
            raise UsageError(
                f"Gate.score takes pixels, not a file; give np.asarray(PIL.Image.open({str(image)!r}).convert('RGB'))"
            )
        picture = np.asarray(image)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise UsageError(
                f"Gate.score takes an RGB picture, uint8 (H, W, 3); got {picture.dtype} {picture.shape}"
            )
        if aligned not in (None, "arcface", "ffhq"):
            raise UsageError(f'aligned must be "arcface" or "ffhq", got {aligned!r}')
        return self._engine.score(picture, aligned=aligned, full=full)

    def close(self) -> None:
        """Release networks and threads."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _locations(source: Any) -> list[Location]:
    if isinstance(source, str | PathLike):
        return [source]
    if isinstance(source, np.ndarray) or not hasattr(source, "__iter__"):
        raise UsageError(
            f"give a path or a list of paths; got {type(source).__name__} (pass pixels to Gate.score or Gate.feed)"
        )
    found = list(source)
    for one in found:
        if not isinstance(one, str | PathLike):
            raise UsageError(f"give paths; got {type(one).__name__} in the list (pass frames to Gate.feed)")
    return found


def configured(preset: Location, settings: Any) -> Config:
    """The configuration from a preset and settings in any form that `Gate` accepts."""
    if isinstance(settings, Mapping):
        return load_config(preset, flags=settings)
    if isinstance(settings, str) or not hasattr(settings, "__iter__"):
        raise UsageError(f'settings takes a dict, {{"measures.yaw.max": 20}}, or a list of strings; got {settings!r}')
    texts = list(settings)
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f'settings takes a dict or a list of strings "key=value"; got {text!r} in the list')
    return load_config(preset, texts)
