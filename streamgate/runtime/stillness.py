"""Faces that never move while another does: a framed portrait, a poster, a picture on a screen.

Now and then, while there are several faces, each is compared with its own first sight, by points in it and in what
surrounds it. Of a picture all these move together, as the camera does; of a person never all: heads sway before what is
behind them, turn, speak and blink. What is too small or too plain for that can still be told where the camera stands
still: there the landmarks of a picture stay where they are to a few thousandths of the distance between its eyes, those
of somebody who sits as still as people can move by several times as much. Memory does not grow with time, and most of
those who are alive are no longer looked at after two seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from streamgate.frames import Array, Face, Frame

INTERVAL_S = 0.35
"""Between two looks at least."""
LEAST_S = 3.0
"""What a face has to be seen for before it counts as still."""
STILL = 0.007
"""Deviation of landmarks from their mean places up to which a face is still, as a share of the distance between the
eyes, root mean square over the landmarks."""
COMPANY = 3
"""Looks in which a face that moves has to be seen beside a still one."""
PATCH_SIDE = 192
"""Pixels, at most, of the square picture in which points are followed: twice the face's box."""
TOLERANCE = 0.75
"""Pixels of that picture within which a point moves with the others."""
APART = 0.007
"""Distance of a face from where its surroundings would have it up to which it is still, as a share of the distance
between the eyes, root mean square over the looks."""
MIN_POINTS = 8
"""Points in the face, and as many around it, without which nothing can be told."""
FACE_SHARE, AROUND_SHARE = 0.8, 0.5
"""Share of the points in and around a picture that move together. Somebody may pass before its edge."""
MOVED = 3
"""Looks at which a face has moved after which it is not looked at any more ..."""
CHANCE = 0.1
"""... and the share of looks at which that may happen to a picture, by noise or by what is in front of it."""


class StillnessDetector:
    """Watches the faces of one source."""

    def __init__(self) -> None:
        self._motions: dict[int, _Motion] = {}
        self._next = -np.inf

    def note(self, pts_seconds: float, faces: Mapping[int, tuple[Frame, Face]]) -> None:
        """Take in the faces of a frame by track, each with at least the region around it."""
        if not faces or pts_seconds < self._next or len(self._motions.keys() | faces.keys()) < 2:
            return
        self._next = pts_seconds + INTERVAL_S
        moving = [track_id for track_id in faces if track_id in self._motions and self._motions[track_id].moves]
        for track_id, (frame, face) in faces.items():
            if track_id not in self._motions:
                self._motions[track_id] = _Motion(pts_seconds, _FacePatch(frame, face))
            motion = self._motions[track_id]
            if not motion.moves:
                motion.look(pts_seconds, frame, face)
                motion.company += bool(moving)

    def is_still(self, track_id: int) -> bool:
        """Whether a face has never moved, was seen for long enough to say so, and beside one that did move."""
        motion = self._motions.get(track_id)
        return motion is not None and motion.company >= COMPANY and motion.still

    def forget(self, track_ids: Iterable[int]) -> None:
        """Tracks have ended."""
        for track_id in track_ids:
            self._motions.pop(track_id, None)
        if not self._motions:
            self._next = -np.inf


@dataclass(slots=True)
class _Motion:
    """What is known of one face: how often it was seen to move, and where its landmarks have been."""

    first_pts: float
    first: _FacePatch
    last_pts: float = 0.0
    looks: int = 0
    compared: int = 0
    moved: int = 0
    placed: int = 0
    apart: float = 0.0
    company: int = 0
    mean: Array = field(default_factory=lambda: np.zeros((5, 2)))
    squares: float = 0.0

    def look(self, pts_seconds: float, frame: Frame, face: Face) -> None:
        self.last_pts = pts_seconds
        self.looks += 1
        before = face.landmarks.astype(np.float64) - self.mean
        self.mean = self.mean + before / self.looks
        self.squares += float((before * (face.landmarks - self.mean)).sum())
        if self.looks > 1 and (found := self.first.compare(frame, face)) is not None:
            same, apart = found
            self.compared += 1
            self.moved += not same
            if apart is not None:
                self.placed += 1
                self.apart += apart**2

    @property
    def deviation(self) -> float:
        """Of the landmarks in the picture, as a share of the distance between the eyes."""
        eyes = float(np.hypot(*(self.mean[1] - self.mean[0])))
        return float(np.sqrt(self.squares / (5 * self.looks))) / max(eyes, 1e-6)

    @property
    def moves(self) -> bool:
        """It is somebody: not looked at any more, and company for those that are still."""
        return self.moved >= MOVED and self.moved > CHANCE * self.looks

    @property
    def still(self) -> bool:
        # A track is a little longer than from its first look to its last.
        if self.last_pts - self.first_pts < LEAST_S - 2 * INTERVAL_S:
            return False
        if self.moved > CHANCE * self.compared:
            return False
        return self.deviation <= STILL or (
            self.placed >= 0.6 * (self.looks - 1) and float(np.sqrt(self.apart / self.placed)) <= APART
        )


class _FacePatch:
    """The first sight of a face: a grey picture of twice its box, and well marked points in the face and around it."""

    def __init__(self, frame: Frame, face: Face) -> None:
        box = face.box.astype(np.float64)
        whole = 2 * float(max(box[2] - box[0], box[3] - box[1]))
        self._side = int(np.clip(whole, 16, PATCH_SIDE))
        self._scale = self._side / max(whole, 1.0)
        self._centre = _centre(face)
        self._picture = self._cut(frame, self._centre)
        x, y = (self._centre - (box[:2] + box[2:]) / 2) * self._scale
        half = (box[2:] - box[:2]) / 2 * self._scale
        middle = self._side / 2
        left, top, right, bottom = np.round(
            [middle - x - half[0], middle - y - half[1], middle - x + half[0], middle - y + half[1]]
        ).astype(int)
        inside = np.zeros(self._picture.shape, np.uint8)
        inside[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 255
        # Hair moves with the head: what is around it begins a little further out.
        grow = int(0.12 * (right - left))
        around = np.full(self._picture.shape, 255, np.uint8)
        around[max(top - 2 * grow, 0) : max(bottom + grow, 0), max(left - grow, 0) : max(right + grow, 0)] = 0
        found = [
            cv2.goodFeaturesToTrack(self._picture, 40, 0.02, max(3, self._side // 40), mask=mask)
            for mask in (inside, around)
        ]
        self._in_face, self._around = (np.zeros((0, 1, 2), np.float32) if one is None else one for one in found)
        self._landmarks = (face.landmarks.astype(np.float64) - self._centre) * self._scale + middle
        self._eyes = max(face.inter_eye * self._scale, 1e-6)

    def compare(self, frame: Frame, face: Face) -> tuple[bool, float | None] | None:
        """Whether the face is the same but for its place, and how far it is from where its surroundings would have it.

        The distance is a share of that between the eyes, None where the surroundings tell nothing. None for a face that
        has too few points.
        """
        if len(self._in_face) < MIN_POINTS:
            return None
        now = self._cut(frame, _centre(face))
        own = self._moved(self._in_face, now, FACE_SHARE)
        if own is None:
            return False, None
        around = self._moved(self._around, now, AROUND_SHARE)
        if around is None:
            return True, None
        apart = self._landmarks @ (own - around)[:, :2].T + (own - around)[:, 2]
        return True, float(np.sqrt((apart**2).sum(axis=1).mean())) / self._eyes

    def _moved(self, points: Array, now: Array, share: float) -> Array | None:
        """How points of the first sight have moved, (2, 3), where at least a `share` of them has done so together."""
        if len(points) < MIN_POINTS:
            return None
        moved_to, found, _ = cv2.calcOpticalFlowPyrLK(
            self._picture, now, points, np.zeros_like(points), winSize=(15, 15), maxLevel=2
        )
        seen = found[:, 0] == 1
        if seen.sum() < MIN_POINTS:
            return None
        matrix, agree = cv2.estimateAffinePartial2D(
            points[seen], moved_to[seen], method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE, maxIters=200
        )
        return None if matrix is None or agree.sum() < share * len(points) else matrix

    def _cut(self, frame: Frame, centre: Array) -> Array:
        shift = self._side / 2 - self._scale * centre
        matrix = np.array([[self._scale, 0.0, shift[0]], [0.0, self._scale, shift[1]]])
        return cv2.cvtColor(frame.warp(matrix, self._side), cv2.COLOR_RGB2GRAY)


def _centre(face: Face) -> Array:
    """Of the landmarks, in whole pixels."""
    return np.round(face.landmarks.astype(np.float64).mean(axis=0))
