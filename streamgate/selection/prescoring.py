"""Prescores faces of a track: collects cheap evidence and runs the expression network, but no other networks."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from streamgate.config_sections import AdvancedConfig
from streamgate.networks.batcher import InferenceRequest
from streamgate.scoring.faces import FaceScorer
from streamgate.scoring.lockstep import Floor, in_lockstep
from streamgate.selection.observations import Observation, ObservationBuffer
from streamgate.selection.offsets import LandmarkOffsets
from streamgate.selection.reference import TrackReference
from streamgate.tracks import Candidate

MAX_INTERVAL_S = 0.25
"""Maximum time between two prescored faces, for long tracks: short enough to catch a smile or a turn of the head."""
FIRST_S = 1.0
"""The expression network runs on all evenly spaced faces of a track's first second, because a short track needs enough
of them for its reference values: without these, a drawn face that looks real in one frame would pass."""
HOPELESS = 4
"""When this many prescored faces in a row have been rejected, the interval becomes `MAX_INTERVAL_S` until a face is not
rejected. A turned or covered face usually stays turned or covered for a while."""

MAX_SHIFT_GAIN = 4.0
"""Maximum number of points by which the first run of the expression network is expected to raise the potential, because
it moves the landmarks; the same maximum applies to the second run."""


DRAWN_BELOW = 0.7
"""While the usual value of `real` in a track is below this or not known yet, the face may be a drawing, so `real` is
computed for every due face (see `Prescorer.spread`)."""
REAL_INTERVAL_S = 1.0
"""Minimum time in seconds between two computations of `real` otherwise."""
REJECTED = 2
"""When this many prescored faces in a row have been rejected and the median is at least `DRAWN_BELOW`, `real` is not
computed until a face is not rejected."""


class Prescorer:
    """Prescores faces of one track, so that each gets a potential, which is an upper bound of its quality."""

    def __init__(
        self,
        observed: ObservationBuffer,
        reference: TrackReference,
        scorer: FaceScorer,
        config: AdvancedConfig,
        *,
        thins: bool,
    ) -> None:
        """`reference` receives the evidence of the evenly spaced faces; with `thins`, fewer faces are prescored as long
        as all of them are rejected."""
        self._observed = observed
        self._reference = reference
        self._scorer = scorer
        self._config = config
        self._offsets = LandmarkOffsets()
        self._last_pts = self._due_pts = self._real_pts = -np.inf
        self._thins = thins
        self._rejected = 0
        """Number of faces rejected since the last prescored face that was not rejected."""

    def spread(
        self, window: Sequence[Observation], floor: Floor
    ) -> Generator[list[InferenceRequest], list[Any], list[Observation]]:
        """Prescore evenly spaced faces of the window and return them; the others get no potential.

        During the track's first `FIRST_S`, every evenly spaced face is due for the expression network; after that, one
        is due every `MAX_INTERVAL_S`. On the other evenly spaced faces, the network runs only if they could still
        exceed `floor`. Only due faces count for the person's reference values, because these values must not depend on
        what is kept.
        """
        chosen: list[Observation] = []
        for observation in window:
            interval = self._interval(observation)
            if self._thins and self._rejected >= HOPELESS:
                interval = max(interval, MAX_INTERVAL_S)
            if observation.pts_seconds - self._last_pts >= interval - 1e-6:
                self._last_pts = observation.pts_seconds
                chosen.append(observation)
        even = [one for one in chosen if self._is_due(one)]
        # The landmark offset of a track's first face is used for all later faces, so the second run of the expression
        # network on that face is not postponed.
        first = [] if self._offsets else chosen[:1]
        seen = yield from self._prescore_faces(first, even)
        yield from self.run_expression([one for one in first if one.candidate is not None and one.candidate.unsettled])
        looked = [one for one in chosen[len(first) :] if one in even or self._is_promising(one, floor)]
        seen += yield from self._prescore_faces(looked, even)
        for observation in even:
            if observation.candidate in seen:
                self._reference.add(observation.candidate.evidence)
        for observation in [*first, *looked]:
            self._rejected = 0 if observation.potential > 0 else self._rejected + 1
        return chosen

    def _is_due(self, observation: Observation) -> bool:
        """Return whether an evenly spaced face is due for the expression network; if so, record its time."""
        new = observation.pts_seconds - self._observed.first_pts < FIRST_S or not self._reference.usual
        # Of the evenly spaced faces, the one that is nearest to the wanted time.
        if new or observation.pts_seconds - self._due_pts >= MAX_INTERVAL_S - self._interval(observation) / 2:
            self._due_pts = observation.pts_seconds
            return True
        return False

    def _is_promising(self, observation: Observation, floor: Floor) -> bool:
        """Prescore a face without any network; returns whether it may still exceed the floor."""
        if observation.candidate is None:
            return False
        self.prescore(observation)
        return observation.potential + MAX_SHIFT_GAIN > floor(observation.candidate)

    def beside(self, observation: Observation) -> Generator[list[InferenceRequest], list[Any], list[Observation]]:
        """Prescore the face halfway between `observation` and the previous evenly spaced face, and the one halfway to
        the next; return those that had not been prescored yet."""
        reach = self.reach(observation) + 1e-6
        away = [(one.pts_seconds - observation.pts_seconds, one) for one in self._observed]
        before = [one for gap, one in away if -reach <= gap < 0][:1]
        after = [one for gap, one in away if 0 < gap <= reach][-1:]
        new = [one for one in before + after if not one.prescored and one.candidate is not None]
        yield from self._prescore_faces(new)
        return new

    def reach(self, observation: Observation) -> float:
        """Half of the time in seconds between an evenly spaced face and the next."""
        return self._interval(observation) / 2

    def run_expression(
        self, faces: Sequence[Observation], even: Sequence[Observation] = ()
    ) -> Generator[list[InferenceRequest], list[Any], list[Candidate]]:
        """Run the expression network on faces and update their potential; returns their candidates.

        even: the faces that are due (see `spread`). The output `real` is computed for some of these only, because it
        more than doubles the time of a run.
        """
        seen = [(one, one.candidate, one.frame.picture) for one in faces if one.candidate is not None]
        real = [one in even and self._takes_real(one) for one, _, _ in seen]
        yield from in_lockstep(
            self._scorer.run_expression(candidate, picture, real=wanted)
            for (_, candidate, picture), wanted in zip(seen, real, strict=True)
        )
        for observation, candidate, picture in seen:
            if candidate.refined and observation.detected is not None:
                self._offsets.add(candidate.pts_seconds, observation.detected, candidate.face.landmarks)
            observation.potential = self._scorer.potential(candidate, picture)
        return [candidate for _, candidate, _ in seen]

    def prescore(self, observation: Observation) -> None:
        """Prescore a face without any network."""
        candidate = observation.candidate
        if not observation.prescored and candidate is not None:
            if observation.detected is not None and not candidate.refined:
                candidate.face = self._offsets.corrected(candidate.pts_seconds, observation.detected)
                candidate.corrected = bool(self._offsets)
            observation.potential = self._scorer.prescore(candidate, observation.frame.picture)
            observation.prescored = True

    def _takes_real(self, observation: Observation) -> bool:
        """Return whether `real` is to be computed for a due face; if so, record the time of the face."""
        if not self._scorer.sees_drawings:
            return False
        recently = observation.pts_seconds - self._real_pts < REAL_INTERVAL_S
        if self._reference.usual.get("real", 0.0) >= DRAWN_BELOW and (recently or self._rejected >= REJECTED):
            return False
        self._real_pts = observation.pts_seconds
        return True

    def _prescore_faces(
        self, faces: Sequence[Observation], even: Sequence[Observation] = ()
    ) -> Generator[list[InferenceRequest], list[Any], list[Candidate]]:
        """Prescore faces and run the expression network on those that pass so far; returns the candidates on which the
        network ran. For `even`, see `run_expression`."""
        for observation in faces:
            self.prescore(observation)
        if not self._scorer.sees_expressions:
            return []
        faces = [one for one in faces if not one.scored and one.potential > 0]
        return (yield from self.run_expression(faces, even))

    def _interval(self, observation: Observation) -> float:
        """Seconds between two evenly spaced faces; the interval grows with the track, because individual frames of a
        long track matter less."""
        age = observation.pts_seconds - self._observed.first_pts
        return max(self._config.prescore_interval_s, min(MAX_INTERVAL_S, self._config.prescore_share * age))
