"""Links detections to tracks by two-stage association with a motion model (after ByteTrack, Zhang et al. 2022).

Detections with high scores are matched to all tracks first. Detections with low scores are then matched only to tracks
whose face was seen recently. Therefore, a face that turns away or blurs keeps its track, and noise does not start new
tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streamgate.config import Config
from streamgate.faces import Face
from streamgate.frames import Array
from streamgate.tracking.assignment import assign
from streamgate.tracking.motion import BoxMotion
from streamgate.tracking.overlap import grown, iou

GROWTH = 0.25
"""Before the first stage, each side of a box is moved outward by this share of the box's size, so that a small, fast
face overlaps its earlier box."""
GROWTH_NEWBORN = 0.8
"""Like `GROWTH`, for tracks with a single detection, whose velocity is not known yet."""
LOST_WEAK_S = 0.45
"""A track whose face was last seen more than this many seconds ago is not matched to detections with low scores."""
SIZE_RATIO = 1.7
"""Largest ratio of a face's heights in two consecutive detections."""


@dataclass(slots=True)
class Track:
    """One face, followed within one shot."""

    track_id: int
    motion: BoxMotion
    first_pts: float
    last_pts: float
    face: Face
    """The latest detection."""
    detections: int = 1
    missed: int = 0
    """Number of consecutive detection rounds in which the face was not seen."""
    confident: bool = field(default=False)
    """Whether the face has been seen often enough to rule out noise."""


class Tracker:
    """Tracks faces within one source. The ids of the tracks count from 1 over the whole source."""

    def __init__(self, config: Config) -> None:
        self._config = config.advanced
        self._max_gap_s = config.tracking.max_gap_s
        self._tracks: list[Track] = []
        self._next_id = 1

    @property
    def tracks(self) -> Sequence[Track]:
        """Active tracks, ordered by first frame; their faces may have been out of sight for up to `max_gap_s`."""
        return self._tracks

    def update(self, pts_seconds: float, faces: Sequence[Face]) -> list[Track]:
        """Update the tracks with all detections (score >= low_score) of the frame at `pts_seconds`.

        Returns the tracks that are lost. In `tracks`, a track whose face was seen in this round has `missed` 0 and the
        new `face`; a track that begins in this round has a single detection.
        """
        config = self._config
        # Even if the frame interval exceeds `max_gap_s`, a track is lost only after a round that missed its face.
        lost = [track for track in self._tracks if track.missed and pts_seconds - track.last_pts > self._max_gap_s]
        self._tracks = [track for track in self._tracks if track not in lost]
        strong = [face for face in faces if face.score >= config.high_score]
        weak = [face for face in faces if config.low_score <= face.score < config.high_score]

        seen, tracks, strong = self._match(pts_seconds, self._tracks, strong, config.min_iou, GROWTH)
        fresh = [track for track in tracks if pts_seconds - track.last_pts <= LOST_WEAK_S]
        more, _, _ = self._match(pts_seconds, fresh, weak, config.min_iou_low, 0.0)
        seen += more
        for track, face in seen:
            track.motion.update(face.box, pts_seconds)
            track.face = face
            track.last_pts = pts_seconds
            track.detections += 1
            track.missed = 0
            track.confident = track.confident or track.detections >= config.min_detections
        found = {track.track_id for track, _ in seen}
        for track in self._tracks:
            track.missed += track.track_id not in found
        self._tracks += [self._start(pts_seconds, face) for face in strong if face.score >= config.new_score]
        return lost

    def expire(self, born_before: float) -> list[Track]:
        """End the tracks first seen before `born_before` (pts seconds). Returns them ordered by their first frame."""
        ended = [track for track in self._tracks if track.first_pts < born_before]
        self._tracks = [track for track in self._tracks if track.first_pts >= born_before]
        return ended

    def flush(self) -> list[Track]:
        """End all tracks, at a cut or at the end of the source. Returns them ordered by their first frame."""
        ended, self._tracks = self._tracks, []
        return ended

    def restore(self, tracks: Sequence[Track]) -> None:
        """Replace the current tracks by tracks that `flush` returned."""
        self._tracks = list(tracks)

    def _start(self, pts_seconds: float, face: Face) -> Track:
        track = Track(
            self._next_id,
            BoxMotion(face.box, pts_seconds),
            pts_seconds,
            pts_seconds,
            face,
            confident=self._config.min_detections <= 1,
        )
        self._next_id += 1
        return track

    def _match(
        self, pts_seconds: float, tracks: list[Track], faces: list[Face], min_iou: float, growth: float
    ) -> tuple[list[tuple[Track, Face]], list[Track], list[Face]]:
        """Match tracks to faces. Returns the matched pairs, the unmatched tracks and the unmatched faces."""
        if not tracks or not faces:
            return [], list(tracks), list(faces)
        predicted = np.stack([track.motion.predict(pts_seconds) for track in tracks])
        boxes = np.stack([face.box for face in faces]).astype(np.float64)
        newborn = np.array([growth > 0 and track.detections == 1 for track in tracks])
        overlap = np.where(
            newborn[:, None],
            iou(grown(predicted, GROWTH_NEWBORN), grown(boxes, GROWTH_NEWBORN)),
            iou(grown(predicted, growth), grown(boxes, growth)),
        )
        allowed = (overlap >= min_iou) & _similar_size(predicted, boxes)
        # The cost of a pair that is not allowed must exceed the cost of any allowed pair.
        cost = np.where(allowed, 1.0 - overlap, 10.0)
        pairs = [(row, column) for row, column in assign(cost) if allowed[row, column]]
        taken_tracks = {row for row, _ in pairs}
        taken_faces = {column for _, column in pairs}
        return (
            [(tracks[row], faces[column]) for row, column in pairs],
            [track for row, track in enumerate(tracks) if row not in taken_tracks],
            [face for column, face in enumerate(faces) if column not in taken_faces],
        )


def _similar_size(first: Array, second: Array) -> Array:
    """Whether the heights of each pair of boxes are within `SIZE_RATIO`; (N, 4), (M, 4) -> (N, M) bool.

    Widths are not compared, because they change when a head turns.
    """
    ratio = (first[:, 3] - first[:, 1])[:, None] / np.maximum((second[:, 3] - second[:, 1])[None, :], 1e-6)
    return (ratio <= SIZE_RATIO) & (ratio >= 1 / SIZE_RATIO)
