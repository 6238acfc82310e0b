"""Finds faces that never move while another face does: a framed portrait, a poster, a picture on a screen.

While there are several faces, each face is compared at intervals with its own first observation, by tracking points in
the face and around it. In a picture of a person, all these points move together, with the camera. On a live person,
they never all move together: the head sways in front of the background and turns, the mouth speaks, the eyes blink.

A face that is too small or has too little detail for this comparison can still be judged if the camera is static. The
landmarks of a picture then stay in place to a few thousandths of the distance between the eyes. The landmarks of a
person move several times as much, even if the person sits as still as possible.

Memory does not grow with time, and most live faces are no longer checked after two seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import cv2
import numpy as np

from streamgate.faces import Face
from streamgate.frames import Array, Frame

INTERVAL_S = 0.35
"""Minimum time between two checks."""
LEAST_S = 3.0
"""Minimum time for which a face has to be seen before it counts as still."""
STILL = 0.007
"""Maximum deviation of a still face's landmarks from their mean positions, as a share of the distance between the eyes
(root mean square over the landmarks)."""
COMPANY = 3
"""Minimum number of checks in which a moving face must be seen together with a still face."""
PATCH_SIDE = 192
"""Maximum side, in pixels, of the square picture in which points are tracked. It is a cut-out around the face, with
twice the side of the face's box."""
TOLERANCE = 0.75
"""Maximum deviation of a point from the common motion of the points, in pixels of that square picture."""
APART = 0.007
"""Maximum distance of a still face from the position that its surroundings predict, as a share of the distance between
the eyes (root mean square over the checks)."""
MIN_POINTS = 8
"""Minimum number of points in the face, and of points around it, for a comparison."""
FACE_SHARE, AROUND_SHARE = 0.8, 0.5
"""Minimum shares of the points in and around a still face that must move together. The second share is lower because a
person may pass in front of the picture's edge."""
MOVED = 3
"""Minimum number of checks with motion for a face to count as live."""
CHANCE = 0.1
"""Maximum share of checks in which a still face may seem to move, because of noise or of something in front of it."""


class StillnessDetector:
    """Finds the still faces of one source."""

    def __init__(self) -> None:
        self._motions: dict[int, _Motion] = {}
        self._next = -np.inf

    def note(self, pts_seconds: float, faces: Mapping[int, tuple[Frame, Face]]) -> None:
        """Process the faces of a frame, by track id; each `Frame` must hold at least the region around the face."""
        if not faces or pts_seconds < self._next or len(self._motions.keys() | faces.keys()) < 2:
            return
        self._next = pts_seconds + INTERVAL_S
        moving = [track_id for track_id in faces if track_id in self._motions and self._motions[track_id].moves]
        for track_id, (frame, face) in faces.items():
            if track_id not in self._motions:
                self._motions[track_id] = _Motion(pts_seconds, frame, face)
            motion = self._motions[track_id]
            if not motion.moves:
                motion.look(pts_seconds, frame, face)
                motion.company += bool(moving)

    def is_still(self, track_id: int) -> bool:
        """Whether a face has never moved, was seen for long enough, and was seen together with a face that did move."""
        motion = self._motions.get(track_id)
        return motion is not None and motion.company >= COMPANY and motion.still

    def forget(self, track_ids: Iterable[int]) -> None:
        """Drop the state of ended tracks."""
        for track_id in track_ids:
            self._motions.pop(track_id, None)
        if not self._motions:
            self._next = -np.inf


class _Motion:
    """The motion of one face: how often it was seen to move, and statistics of its landmarks' positions.

    Also holds the first observation: a grey picture with twice the side of the face's box, and corner points in and
    around the face.
    """

    def __init__(self, first_pts: float, frame: Frame, face: Face) -> None:
        self.company = 0
        """Number of checks in which a moving face was present too."""
        self._first_pts = self._last_pts = first_pts
        self._looks = self._compared = self._moved = self._placed = 0
        self._apart = self._squares = 0.0
        self._mean = np.zeros((5, 2))
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
        # Hair moves with the head, so the surroundings begin a little further out.
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

    def look(self, pts_seconds: float, frame: Frame, face: Face) -> None:
        self._last_pts = pts_seconds
        self._looks += 1
        before = face.landmarks.astype(np.float64) - self._mean
        self._mean = self._mean + before / self._looks
        self._squares += float((before * (face.landmarks - self._mean)).sum())
        if self._looks > 1 and (found := self._compare(frame, face)) is not None:
            same, apart = found
            self._compared += 1
            self._moved += not same
            if apart is not None:
                self._placed += 1
                self._apart += apart**2

    @property
    def deviation(self) -> float:
        """Deviation of the landmarks in the picture, as a share of the distance between the eyes."""
        eyes = float(np.hypot(*(self._mean[1] - self._mean[0])))
        return float(np.sqrt(self._squares / (5 * self._looks))) / max(eyes, 1e-6)

    @property
    def moves(self) -> bool:
        """Whether this is a live face. A live face is no longer checked, and while it is present, other faces can be
        found to be still."""
        return self._moved >= MOVED and self._moved > CHANCE * self._looks

    @property
    def still(self) -> bool:
        # A track lasts a little longer than the time between its first and its last check.
        if self._last_pts - self._first_pts < LEAST_S - 2 * INTERVAL_S:
            return False
        if self._moved > CHANCE * self._compared:
            return False
        return self.deviation <= STILL or (
            self._placed >= 0.6 * (self._looks - 1) and float(np.sqrt(self._apart / self._placed)) <= APART
        )

    def _compare(self, frame: Frame, face: Face) -> tuple[bool, float | None] | None:
        """Whether all points of the face moved together since its first observation, and how far it is from the
        position that its surroundings predict.

        The distance is given as a share of the distance between the eyes, or None if the surroundings do not allow a
        prediction. Returns None for a face with too few points.
        """
        if len(self._in_face) < MIN_POINTS:
            return None
        now = self._cut(frame, _centre(face))
        own = self._moved_points(self._in_face, now, FACE_SHARE)
        if own is None:
            return False, None
        around = self._moved_points(self._around, now, AROUND_SHARE)
        if around is None:
            return True, None
        apart = self._landmarks @ (own - around)[:, :2].T + (own - around)[:, 2]
        return True, float(np.sqrt((apart**2).sum(axis=1).mean())) / self._eyes

    def _moved_points(self, points: Array, now: Array, share: float) -> Array | None:
        """Motion (2, 3) of points since the first observation; None unless at least `share` of them move together."""
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
    """Centre of the landmarks, in whole pixels."""
    return np.round(face.landmarks.astype(np.float64).mean(axis=0))
