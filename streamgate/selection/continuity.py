"""Checks whether a track still shows the same person. In a tile of a split screen, or across an undetected transition,
the face may change to another person without a cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from typing import Any

import cv2
import numpy as np

from streamgate.frames import Array
from streamgate.measures.yaw import yaw_proxy
from streamgate.networks.batcher import InferenceRequest
from streamgate.scoring.evaluator import SMALL
from streamgate.scoring.faces import FaceScorer
from streamgate.selection.observations import Observation
from streamgate.selection.template import SURE_INTER_EYE
from streamgate.tracking.cuts import grid_difference
from streamgate.tracking.overlap import square

_SIDE = 24
_SAMPLES = 4
"""Large faces are subsampled, so that fewer pixels are averaged for each of the `_SIDE` x `_SIDE` values, but at least
this many in each direction."""
_MARGIN = 0.2
_SUDDEN, _GRADUAL = 0.45, 0.75
"""The recognizer is run if a face and its surroundings change by at least one of these values, relative to their
contrast: the first from one check to the next, the second within a second. For people who talk, the medians of the two
changes are 0.1 to 0.2 and 0.2 to 0.45; for a different face in the same place, they are 0.6 and 0.9."""
_SOON_S = 0.4
"""Maximum time between two checks for `_SUDDEN` to apply. If the checks are further apart (with the preset
`archive`, there are only two per second), only `_GRADUAL` applies."""
_WITHIN_S = 1.0
"""Maximum time between two compared faces; also the time after a comparison during which no new comparison
starts."""
_STRANGERS = 0.5
"""Share of the identity threshold below which two faces belong to different people."""
_HELD_BYTES = 16 << 20
"""Memory limit for the regions that are held for a comparison."""
_YAW = 20.0
"""Degrees of yaw beyond which a recognizer is less reliable than for frontal faces."""


class Continuity:
    """Checks the evenly spaced faces of one track.

    The recognizer is run only when the appearance of the faces changes. The track is split only if two consecutive
    faces show another person.

    Args:
        threshold: the minimum cosine of two faces of one person.
    """

    def __init__(self, scorer: FaceScorer, threshold: float) -> None:
        self._scorer = scorer
        self._threshold = threshold
        self._looks: deque[tuple[float, Array]] = deque()
        self._fit: deque[Observation] = deque()
        self._anchor: Array | None = None
        self._known: Array | None = None
        self._asking = False
        self._answered = -np.inf
        self._doubtful: tuple[float, Array] | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether the last recognised face showed another person; the next face decides whether the track is split."""
        return self._doubtful is not None

    def follow(
        self, observations: Iterable[Observation], track: Iterable[Observation]
    ) -> Generator[list[InferenceRequest], list[Any], float | None]:
        """Process the next evenly spaced faces, in order of time.

        If they show another person, returns the time of the last face of the first person in `track` (all faces held,
        in order); otherwise returns None. After a time has been returned, the instance must not be used again.
        """
        for observation in observations:
            if observation.candidate is None or observation.candidate.spoiled:
                continue
            quiet = observation.pts_seconds - self._answered <= _WITHIN_S
            if self._looks_new(observation) and not quiet and not self._asking and self._fit:
                self._asking, self._anchor = True, None
            if not _is_fit(observation):
                continue
            if self._asking:
                vector = yield from self._embedding(observation)
                if vector is None or (yield from self._is_known(vector)):
                    self._asking, self._doubtful, self._answered = False, None, observation.pts_seconds
                elif self._doubtful is None or float(self._doubtful[1] @ vector) < self._threshold:
                    self._doubtful = observation.pts_seconds, vector
                    continue
                else:
                    return (yield from self._last_known(list(track)))
            self._remember(observation)
        return None

    def _is_known(self, vector: Array) -> Generator[list[InferenceRequest], list[Any], bool]:
        """Return whether a face with this embedding may show the person of the track.

        The embedding is compared with that of the last face known to show this person. If the two differ, it is also
        compared with the embedding of the oldest face held.
        """
        least = _STRANGERS * self._threshold
        if self._known is not None and self._known @ vector >= least:
            return True
        if self._anchor is None:
            self._anchor = yield from self._embedding(self._fit[0])
        if self._anchor is None:
            return True
        if self._anchor @ vector < least:
            return False
        self._known = vector
        return True

    def _last_known(self, track: list[Observation]) -> Generator[list[InferenceRequest], list[Any], float]:
        """Time of the last face, before the doubtful one, that still shows the first person."""
        assert self._doubtful is not None and self._anchor is not None
        first, (doubtful_pts, strange) = self._fit[0].pts_seconds, self._doubtful
        for observation in reversed(track):
            if first < observation.pts_seconds < doubtful_pts and observation.candidate is not None:
                vector = yield from self._embedding(observation)
                if vector is not None and float(self._anchor @ vector) >= float(strange @ vector):
                    return observation.pts_seconds
        return first

    def _remember(self, observation: Observation) -> None:
        fit = self._fit
        fit.append(observation)
        while len(fit) > 1 and (
            observation.pts_seconds - fit[0].pts_seconds > _WITHIN_S
            or sum(one.frame.picture.nbytes for one in fit) > _HELD_BYTES
        ):
            fit.popleft()

    def _looks_new(self, observation: Observation) -> bool:
        assert observation.candidate is not None
        luma = observation.frame.luma(square(observation.candidate.face.box, _MARGIN))
        if min(luma.shape) == 0:
            return False
        # Averaging every pixel of a large face would take several times as long.
        step = max(1, min(luma.shape) // (_SAMPLES * _SIDE))
        look = cv2.resize(luma[::step, ::step], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        looks = self._looks
        while looks and observation.pts_seconds - looks[0][0] > _WITHIN_S:
            looks.popleft()
        new = bool(looks) and (
            grid_difference(looks[0][1], look) >= _GRADUAL
            or (observation.pts_seconds - looks[-1][0] <= _SOON_S and grid_difference(looks[-1][1], look) >= _SUDDEN)
        )
        looks.append((observation.pts_seconds, look))
        return new

    def _embedding(self, observation: Observation) -> Generator[list[InferenceRequest], list[Any], Array | None]:
        assert observation.candidate is not None
        vector = observation.candidate.evidence.embedding
        if vector is None:
            vector = yield from self._scorer.embedding(observation.candidate.face, observation.frame.picture)
        length = float(np.linalg.norm(vector)) if vector is not None else 0.0
        return vector / length if vector is not None and np.isfinite(length) and length > 0 else None


def _is_fit(observation: Observation) -> bool:
    assert observation.candidate is not None
    face = observation.candidate.face
    small = face.inter_eye < SURE_INTER_EYE or SMALL in observation.candidate.gate.reasons
    return not small and abs(yaw_proxy(face)) <= _YAW
