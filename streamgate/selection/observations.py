"""Holds the faces of one track until selection no longer needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from streamgate.faces import Face
from streamgate.frames import Frame
from streamgate.tracks import Candidate


@dataclass(slots=True, eq=False)
class Observation:
    """A track's face in one frame: a copied region, and a candidate once the face is detected or interpolated."""

    frame: Frame
    """Time and index of the frame; its picture is the copied region."""
    candidate: Candidate | None = None
    detected: Face | None = None
    """The face as detected or interpolated, without the later correction of the candidate's landmarks."""
    potential: float = 0.0
    prescored: bool = False
    scored: bool = False
    """Whether all requested networks have run, so that the quality is final."""
    offered: bool = False
    recognised: bool = False
    """Whether the embedding is part of the track's template."""

    @property
    def pts_seconds(self) -> float:
        """Time of the frame."""
        return self.frame.pts_seconds

    @property
    def quality(self) -> float:
        """The candidate's quality, 0..100; -1.0 if it has none."""
        quality = self.candidate.quality if self.candidate else None
        return -1.0 if quality is None else quality

    @property
    def passed(self) -> bool:
        """Whether the candidate passed the gate; false until all its measures are known."""
        return self.candidate is not None and self.candidate.gate.passed


class ObservationBuffer:
    """The observations of one track that are still held, in order of time.

    Frames between two detections are added once their faces have been interpolated.
    """

    def __init__(self, lookback_s: float, make: Callable[[Frame, Face], Candidate]) -> None:
        """`lookback_s` is the maximum time for which a frame is held until the next detection; `make` creates a
        candidate."""
        self.first_pts = 0.0
        self.last_pts = 0.0
        self.frames_seen = 0
        self._lookback_s = lookback_s
        self._make = make
        self._observations: deque[Observation] = deque()
        self._pending: list[Observation] = []
        self._detected: Observation | None = None
        self._lost_pts = -np.inf

    def __iter__(self) -> Iterator[Observation]:
        return iter(self._observations)

    def __len__(self) -> int:
        return len(self._observations)

    @property
    def oldest(self) -> Observation:
        """The earliest observation. The buffer must not be empty."""
        return self._observations[0]

    @property
    def newest(self) -> Observation:
        """The latest observation. The buffer must not be empty."""
        return self._observations[-1]

    @property
    def nbytes(self) -> int:
        """Size of the held regions in bytes."""
        return sum(observation.frame.picture.nbytes for observation in self._observations)

    def between(self, frame: Frame) -> None:
        """Add a frame on which no detection ran, and whose picture is a region of this face; it is held until the next
        detection."""
        self._pending.append(Observation(frame))
        while self._pending[0].pts_seconds < frame.pts_seconds - self._lookback_s:
            self._pending.pop(0)

    def detected(self, frame: Frame, face: Face) -> list[Candidate]:
        """Add a detection of this track; the frame's picture is a region of this face.

        Returns the new candidates, in order of time.
        """
        here = Observation(frame, self._make(frame, face), face)
        made: list[Candidate] = []
        for observation in self._pending if self._detected is not None else ():
            assert self._detected is not None
            observation.detected = interpolate(self._detected, here, observation.pts_seconds)
            observation.candidate = self._make(observation.frame, observation.detected)
            observation.candidate.interpolated = True
            made.append(observation.candidate)
            self._observations.append(observation)
        self._pending = []
        self._observations.append(here)
        assert here.candidate is not None
        made.append(here.candidate)
        self._detected = here
        if self.frames_seen == 0:
            self.first_pts = frame.pts_seconds
        self.last_pts = frame.pts_seconds
        self.frames_seen += len(made)
        return made

    def split(self, after: float) -> list[Observation]:
        """Remove and return the observations later than `after`, in order. Frames that are still waiting for a
        detection are dropped."""
        kept = deque(one for one in self._observations if one.pts_seconds <= after)
        gone = [one for one in self._observations if one.pts_seconds > after]
        self._observations, self._pending, self._detected = kept, [], None
        self.frames_seen -= len(gone)
        self.last_pts = min(self.last_pts, after)
        return gone

    def adopt(self, observations: Sequence[Observation]) -> None:
        """Start with one or more observations that another buffer returned from `split`; the last must be a
        detection."""
        self._observations.extend(observations)
        self.first_pts, self.last_pts = observations[0].pts_seconds, observations[-1].pts_seconds
        self.frames_seen = len(observations)
        self._detected = observations[-1]

    def unseen(self) -> None:
        """Drop the frames since the last detection: the detector did not find the face again, so its position in these
        frames is unreliable."""
        self._pending = []
        self._detected = None

    def neighbours(self, observation: Observation, reach: float) -> list[Observation]:
        """The observations directly before and after this one, if they are within `reach` seconds."""
        index = next(i for i, one in enumerate(self._observations) if one is observation)
        beside = [self._observations[i] for i in (index - 1, index + 1) if 0 <= i < len(self._observations)]
        return [one for one in beside if abs(one.pts_seconds - observation.pts_seconds) <= reach]

    def has_lost_neighbour(self, observation: Observation, reach: float) -> bool:
        """Whether the observation before this one was within `reach` seconds of it and has been dropped."""
        return observation is self.oldest and observation.pts_seconds - self._lost_pts <= reach

    def is_isolated(self, observation: Observation, reach: float) -> bool:
        """Whether the observation has no neighbour within `reach` seconds because the frames next to it were not
        decoded."""
        if self.neighbours(observation, reach):
            return False
        after = next((one for one in self._observations if one.pts_seconds > observation.pts_seconds), None)
        return observation.frame.left_out > 0 or (after is not None and after.frame.left_out > 0)

    def let_go(self, before: float) -> list[Observation]:
        """Remove and return the observations earlier than `before`."""
        gone = []
        while self._observations and self._observations[0].pts_seconds < before:
            gone.append(self._observations.popleft())
            self._lost_pts = gone[-1].pts_seconds
        return gone


def interpolate(before: Observation, after: Observation, pts_seconds: float) -> Face:
    """The face at a time between two detections, by linear interpolation."""
    assert before.detected is not None and after.detected is not None
    span = after.pts_seconds - before.pts_seconds
    share = (pts_seconds - before.pts_seconds) / span if span > 0 else 0.0
    first, second = before.detected, after.detected
    return Face(
        (first.box + (second.box - first.box) * share).astype(np.float32),
        (first.landmarks + (second.landmarks - first.landmarks) * share).astype(np.float32),
        min(first.score, second.score),
    )
