"""A second look at the footage: frames found again by their time, faces in them scored in full and cut out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from streamgate.errors import WeightsError
from streamgate.frames import Candidate, Frame, Picture, TrackEnd
from streamgate.gate import Gate
from streamgate.runtime.crop_finalizer import CropFinalizer
from streamgate.scoring.faces import FaceScorer
from streamgate.scoring.full_scorer import FullScorer, cards_in_use, face_region
from streamgate.scoring.lockstep import no_floor, run_in_lockstep
from streamgate.sources import Source
from streamgate.sources.base import SAME_TIME_S
from streamgate.sources.footage import FootageFinder
from streamgate.store.jsonlines import Record
from streamgate.tuning.settings import Tuning
from streamgate.weights.catalog import ROLES
from streamgate.weights.store import resolve

_READ_ON_S = 2.0
"""A frame that lies so little ahead is read on to; for one further on the source is entered anew."""


class FootageScorer:
    """Opens sources and networks when the first face asks for them.

    Args:
        folders: where to look for sources, besides where the run found them.
        models: weights; None for those of the run, by their sha256.
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
        """Faces that were looked at."""
        self._tuning = tuning
        self._finder = FootageFinder(out, folders)
        self._models = models
        self._device = device
        self._gate: Gate | None = None
        self._scorer: FaceScorer | None = None

    def open(self, record: Record, sequence_fps: float | None = None) -> Source:
        """The source of which `record` tells how it went; a folder of pictures that was read as a sequence at its rate.

        Raises SourceError when it is not there any more or has changed.
        """
        return self._finder.open(record, sequence_fps)

    def score(self, source: Source, faces: Iterable[Candidate]) -> None:
        """Score faces in full, in place; one that passes gets its crop.

        Faces whose frame is not found stay as they are. Raises SourceError when the source cannot be read, WeightsError
        when the run's networks are not at hand.
        """
        scorer = self._opened()
        for frame, candidates in at_their_times(source, faces):
            for candidate in candidates:
                region = self._region(frame, candidate)
                run_in_lockstep([scorer.score(candidate, region, no_floor, full=True)], scorer.context.infer)
                passed = candidate.gate.passed
                candidate.crop = scorer.crop(candidate, region) if passed else None
                candidate.phash = scorer.fingerprint(candidate, region) if passed else None
                self.looked += 1

    def finish(self, source: Source, ended: TrackEnd) -> TrackEnd:
        """`ended` with all the pictures of its shots that the run writes, as it encodes them."""
        return CropFinalizer(self._opened().context, source).finish(ended)

    def close(self) -> None:
        """Let go of the networks."""
        if self._gate is not None:
            self._gate.close()
            self._gate = None

    def _opened(self) -> FaceScorer:
        if self._scorer is None:
            self._gate = Gate(models=self._right_models(), device=self._device, config=self._tuning.after)
            context = self._gate.scoring(self._tuning.after, "tune")
            if context.evaluator.calibration_id != self._tuning.evaluator.calibration_id:
                raise WeightsError("the networks at hand are calibrated otherwise than those of the run; give --models")
            self._scorer = FullScorer(context)
        return self._scorer

    def _right_models(self) -> str:
        """Which weights are those of the run. Raises WeightsError."""
        # Measures of the preset name their own files.
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
            "a look at the footage takes the networks of the run, and other ones are here; give theirs with --models"
        )

    def _region(self, frame: Frame, candidate: Candidate) -> Picture:
        """What a run would have held of the frame: a copied square around the face."""
        config = self._tuning.after
        kept = face_region(candidate.face.box, config.advanced.region_margin, cards_in_use(config), frame.picture)
        return frame.region(kept)


def at_their_times(source: Source, faces: Iterable[Candidate]) -> Iterator[tuple[Frame, list[Candidate]]]:
    """Each frame that shows some of `faces`, once, in order of time."""
    by_time: dict[float, list[Candidate]] = {}
    for face in faces:
        by_time.setdefault(face.pts_seconds, []).append(face)
    left = sorted(by_time)
    while left:
        found = None
        with closing(source.frames_from(left[0])) as frames:
            for frame in frames:
                while left and left[0] < frame.pts_seconds - SAME_TIME_S:
                    left.pop(0)  # not there
                if not left or (found is not None and left[0] - frame.pts_seconds > _READ_ON_S):
                    break
                if abs(left[0] - frame.pts_seconds) <= SAME_TIME_S:
                    found = left.pop(0)
                    yield frame, by_time[found]
                del frame
            else:
                return
