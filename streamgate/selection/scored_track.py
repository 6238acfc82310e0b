"""The scored faces of one track: their results, which faces may still be kept, and which are final."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamgate.config import Config
from streamgate.faces import Face
from streamgate.frames import Frame, Picture
from streamgate.scoring.faces import FaceScorer
from streamgate.scoring.lockstep import Floor, Steps, in_lockstep, no_floor
from streamgate.selection.keeper import Keeper
from streamgate.selection.near_misses import NearMisses
from streamgate.selection.observations import Observation, ObservationBuffer
from streamgate.selection.reference import TrackReference
from streamgate.selection.template import TemplateSum
from streamgate.tracks import Candidate


class ScoredTrack:
    """Scores faces of one track and keeps the best; `TrackSelector` decides which faces are scored."""

    def __init__(self, track_id: int, config: Config, scorer: FaceScorer, *, near_misses: int = 0) -> None:
        """`near_misses` is the maximum number of near misses that are remembered, each with a small picture."""
        self.track_id = track_id
        self.keeper = Keeper(config.keep, config.smoothing, scorer.crop)
        self.near_misses = NearMisses(near_misses, lambda candidate, picture: scorer.thumbnail(candidate, picture))
        self.reference = TrackReference()
        self.template = TemplateSum() if config.identity.store != "none" or config.identity.only else None
        self.frames_scored = 0
        self.observed = ObservationBuffer(config.advanced.lookback_s, self._candidate)
        self._binned = config.keep.poses == "all"
        self._config = config
        self._scorer = scorer
        self._fallback: Observation | None = None
        self._done: list[Candidate] = []
        self._finalists: list[Candidate] = []
        self._ceilings: dict[str, float] = {}
        self._record = 0.0
        self._ended = False

    @property
    def contenders(self) -> list[Candidate]:
        """Faces that may still be kept, including the best one of those that were rejected when they were prescored."""
        found, fallback = self.keeper.contenders, self._fallback
        return found if fallback is None or fallback.candidate is None else [*found, fallback.candidate]

    def drain(self) -> list[Candidate]:
        """Return the evaluated faces that will not change any more; each face is returned only once.

        The faces are in order of time, except for those that the keeper still holds: they are evaluated again when the
        track has ended, and are returned only then.
        """
        left = [one for one in self._finalists if self._ended or not self.keeper.holds(one)]
        self._finalists = [one for one in self._finalists if one not in left]
        done, self._done = self._done + left, []
        return done

    def _score(self, observation: Observation, floor: Floor, *, full: bool) -> Steps:
        assert observation.candidate is not None
        yield from self._scorer.score(observation.candidate, observation.frame.picture, floor, full=full)
        self._scored(observation, full=full)

    def _score_fully(self, observations: Sequence[Observation], real_from: Candidate | None = None) -> Steps:
        """Run all networks on the observations that are not scored yet, in shared batches. For `real_from`, see
        `FaceScorer.score`."""
        left = [one for one in observations if not one.scored and one.candidate is not None]
        yield from in_lockstep(
            self._scorer.score(one.candidate, one.frame.picture, no_floor, full=True, real_from=real_from)
            for one in left
            if one.candidate is not None
        )
        for observation in left:
            self._scored(observation, full=True)

    def _scored(self, observation: Observation, *, full: bool) -> None:
        """Update the track's state after the scoring of a face has finished or has stopped early."""
        candidate = observation.candidate
        assert candidate is not None
        observation.prescored = True
        if self.template is not None and not observation.recognised and candidate.evidence.embedding is not None:
            self.template.add(candidate)
            observation.recognised = True
        if candidate.quality is not None or full:
            observation.scored = True
            # From now on, the face is ordered by its quality.
            observation.potential = observation.quality
        if candidate.quality is not None:
            self.frames_scored += 1
            self._learn(candidate)
            self.keeper.note(candidate)

    def _learn(self, candidate: Candidate) -> None:
        """Update the ceilings of this track's scalars and the best bound of a scored face.

        With pose bins, nothing is updated, because one pose says nothing about another.
        """
        if self._binned:
            return
        margin = self._config.advanced.network_margin
        for name, measure in candidate.measures.items():
            if measure.scalar is not None:
                self._ceilings[name] = max(self._ceilings.get(name, 0.0), min(100.0, measure.scalar + margin))
        self._record = max(self._record, candidate.bound)

    def _is_record(self, observation: Observation) -> bool:
        """Whether the face's bound, before the expensive networks run, exceeds the bounds of all scored faces."""
        return observation.candidate is not None and observation.candidate.bound > self._record

    def _offer(self, observation: Observation) -> None:
        observation.offered = True
        if observation.candidate is not None and observation.candidate.quality is not None:
            if observation.candidate.gate.passed and observation.candidate.phash is None:
                observation.candidate.phash = self._scorer.fingerprint(observation.candidate, observation.frame.picture)
            self.keeper.offer(observation.candidate, observation.frame.picture)

    def _remember_fallback(self, window: list[Observation]) -> None:
        """Remember the least bad of the faces that the cheap gate rejected, in case no better face follows."""

        def badness(observation: Observation) -> tuple[int, float, float]:
            assert observation.candidate is not None
            return (len(observation.candidate.gate.reasons), -observation.candidate.bound, observation.pts_seconds)

        best = min(window, key=badness)
        if self._fallback is None or badness(best) < badness(self._fallback):
            before, self._fallback = self._fallback, best
            if before is not None and before not in self.observed and before.candidate is not None:
                self._done.append(before.candidate)

    def _let_go(self, before: float) -> None:
        """Drop evaluated faces earlier than `before`; later ones may be neighbours of faces in the next window."""
        settled: list[tuple[Candidate, Picture]] = []
        for observation in self.observed.let_go(before):
            # The fallback's values are not final until the track has ended.
            if observation.candidate is not None and observation.prescored and observation is not self._fallback:
                if self.keeper.holds(observation.candidate):
                    self._finalists.append(observation.candidate)
                else:
                    self._done.append(observation.candidate)
                settled.append((observation.candidate, observation.frame.picture))
        self.near_misses.offer(settled)
        if before == np.inf and self._fallback is not None and self._fallback.candidate is not None:
            self._done.append(self._fallback.candidate)
            self._fallback = None

    def _candidate(self, frame: Frame, face: Face, like: Candidate | None = None) -> Candidate:
        """Create a candidate; `like` is an earlier candidate of the same face, if there is one."""
        return Candidate(
            face,
            track_id=self.track_id,
            pts_seconds=frame.pts_seconds,
            interpolated=like is not None and like.interpolated,
            refined=like is not None and like.refined,
            frame_index=frame.frame_index,
            pts_estimated=frame.pts_estimated,
            captured_at=frame.captured_at,
            name=frame.name,
            spoiled=frame.spoiled,
            shown=frame.shown,
            ceilings=self._ceilings,
            usual=self.reference.usual,
        )
