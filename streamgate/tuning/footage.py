"""Reads footage again: finds frames by their time, and fully scores and crops faces in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from streamgate.engine import Engine
from streamgate.errors import WeightsError
from streamgate.frames import Frame, Picture
from streamgate.runtime.crop_finalizer import CropFinalizer
from streamgate.scoring.faces import FaceScorer
from streamgate.scoring.full_scorer import FullScorer, cards_in_use, face_region
from streamgate.scoring.lockstep import no_floor, run_in_lockstep
from streamgate.sources import Source
from streamgate.sources.base import SAME_TIME_S
from streamgate.sources.footage import FootageFinder
from streamgate.store.jsonlines import Record
from streamgate.tracks import Candidate, TrackEnd
from streamgate.tuning.settings import Tuning
from streamgate.weights.catalog import ROLES
from streamgate.weights.store import resolve

_READ_ON_S = 2.0
"""Frames that are at most this many seconds ahead are reached by decoding up to them, later frames by seeking."""


class FootageScorer:
    """Scores faces in the footage. Sources and networks are opened when they are first needed.

    Args:
        folders: additional folders in which to search for sources.
        models: the weights to use; if None, the weights of the run are searched for by their sha256.
    """

    def __init__(
        self,
        out: Path,
        tuning: Tuning,
        *,
        folders: Sequence[Path] = (),
        models: str | None = None,
        device: str = "auto",
    ) -> None:
        self.looked = 0
        """Number of faces scored so far."""
        self._tuning = tuning
        self._finder = FootageFinder(out, folders)
        self._models = models
        self._device = device
        self._engine: Engine | None = None
        self._scorer: FaceScorer | None = None

    def open(self, record: Record, sequence_fps: float | None = None) -> Source:
        """Open the source of `record`. `sequence_fps` is the frame rate if a folder of pictures was read as a sequence.

        Raises SourceError if the source is missing or has changed.
        """
        return self._finder.open(record, sequence_fps)

    def score(self, source: Source, faces: Iterable[Candidate]) -> None:
        """Fully score faces in place. Faces that pass the gate get a crop.

        A face whose frame is not found is left unchanged. Raises SourceError if the source cannot be read, and
        WeightsError if the networks of the run are not available.
        """
        scorer = self._opened()
        for frame, candidates in at_their_times(source, faces):
            for candidate in candidates:
                region = self._region(frame, candidate)
                run_in_lockstep([scorer.score(candidate, region, no_floor, full=True)], scorer.context.infer)
                passed = candidate.gate.passed
                candidate.image = scorer.crop(candidate, region) if passed else None
                candidate.phash = scorer.fingerprint(candidate, region) if passed else None
                self.looked += 1

    def finish(self, source: Source, ended: TrackEnd) -> TrackEnd:
        """Add all pictures to the shots of `ended`, as in the run."""
        return CropFinalizer(self._opened().context, source).finish(ended)

    def close(self) -> None:
        """Release the networks."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _opened(self) -> FaceScorer:
        if self._scorer is None:
            self._engine = Engine(self._tuning.after, models=self._right_models(), device=self._device)
            context = self._engine.context(self._tuning.after, "tune")
            if context.evaluator.calibration_id != self._tuning.evaluator.calibration_id:
                raise WeightsError(
                    "the calibration of the installed networks differs from that of the run; "
                    "give the networks of the run with --models"
                )
            self._scorer = FullScorer(context)
        return self._scorer

    def _right_models(self) -> str:
        """The weights that match those of the run. Raises WeightsError."""
        # A preset can define measures with networks of their own; these networks belong to no set of weights.
        weights = [one for one in self._tuning.run.weights if str(one["role"]) in ROLES]
        wanted = {str(one["role"]): str(one["sha256"]) for one in weights}
        tiers = [str(one.get("tier")) for one in weights]
        together = ",".join(dict.fromkeys(tiers))
        for models in [self._models] if self._models else list(dict.fromkeys([together, "embedded", "standard"])):
            try:
                found = resolve(models)
            except WeightsError:
                continue
            if {role: weights.sha256 for role, weights in found.items()} == wanted:
                return models
        raise WeightsError(
            "the footage must be scored with the networks of the run, but other networks are installed; give the "
            "networks of the run with --models"
        )

    def _region(self, frame: Frame, candidate: Candidate) -> Picture:
        """The part of the frame that a run would have copied: a square around the face."""
        config = self._tuning.after
        kept = face_region(candidate.face.box, config.advanced.region_margin, cards_in_use(config), frame.picture)
        return frame.region(kept)


def at_their_times(source: Source, faces: Iterable[Candidate]) -> Iterator[tuple[Frame, list[Candidate]]]:
    """Yield each frame that shows any of `faces`, together with the faces that it shows, in order of time."""
    by_time: dict[float, list[Candidate]] = {}
    for face in faces:
        by_time.setdefault(face.pts_seconds, []).append(face)
    left = sorted(by_time)
    while left:
        found = None
        with closing(source.frames_from(left[0])) as frames:
            for frame in frames:
                while left and left[0] < frame.pts_seconds - SAME_TIME_S:
                    left.pop(0)  # no frame has this time
                if not left or (found is not None and left[0] - frame.pts_seconds > _READ_ON_S):
                    break
                if abs(left[0] - frame.pts_seconds) <= SAME_TIME_S:
                    found = left.pop(0)
                    yield frame, by_time[found]
                del frame
            else:
                return
