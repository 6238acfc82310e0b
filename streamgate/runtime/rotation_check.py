"""Detects sideways footage that has no rotation metadata.

Footage is rotated only if no upright face is found in the first seconds and faces in several frames agree on one
quarter turn. Detectors also find faces in animals, cartoons and crumpled cloth, and mistake sideways faces for upright
ones, but rarely at two sizes of the same picture. Therefore, a direction counts only if a face is found at both sizes,
with a much higher score than in the other directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from streamgate.faces import Face
from streamgate.frames import Array, Frame
from streamgate.tracking.overlap import iou

FIRST_S = 3.0
"""Seconds from the start within which the decision is made."""
AGREEING = 3
"""Number of frames that must agree on the direction."""
SCORE = 0.9
SURE = 0.95
"""Minimum score of an upright face that ends the search. The face must reach the score at both sizes of a frame, or in
`AGREEING` frames without a sideways face."""
TILT = 20.0
"""Maximum tilt, in degrees, of a sideways face after rotation. A face with a larger tilt is not evidence, because the
person may be leaning on a cushion."""
LEAN = 45.0
"""Maximum tilt, in degrees, of a face whose score counts for a direction; for a sideways direction, `TILT` applies
too."""
MARGIN = 0.15
"""Minimum difference between the score of a direction and the scores of the other directions, averaged over the frames.
The score of a direction is the lower of its scores at the two sizes."""
OVERLAP = 0.3
"""Minimum IoU of the boxes found at the two sizes for them to be the same face."""
PROBES_S = (0.0, 1.6)
"""Times, in seconds from the start, at which a frame is checked if no face has been found so far."""
EVERY_S = 0.3
"""Seconds between checked frames once a face has been found."""
SHRINK = 1.4
"""Factor by which the thumbnail for the first check is smaller, in width and height, than the thumbnail for upright
detection. With this factor, checking both directions costs no more than one detection."""

_QUARTERS = range(4)


class SidewaysDetector:
    """Checks a source's first frames for sideways faces.

    Args:
        detect: takes pictures, RGB uint8 (h, w, 3); returns the faces of each, in pixels of that picture.
        high_score: the minimum score at which a detection counts as a face.
    """

    def __init__(self, detect: Callable[[Sequence[Array]], Sequence[Sequence[Face]]], high_score: float) -> None:
        self.quarters: int | None = None
        """Number of clockwise quarter turns that make the footage upright; None while undecided."""
        self._detect = detect
        self._high_score = high_score
        self._first_pts: float | None = None
        self._looked_pts = -np.inf
        self._probes = 0
        self._agreeing: list[tuple[int, Array]] = []  # number of quarter turns, and the score of each direction
        self._unclear = 0
        self._upright = 0

    @property
    def suspects(self) -> bool:
        """Whether more frames are needed because some may show a sideways face."""
        return self.quarters is None and bool(self._agreeing or self._unclear)

    def look(self, frame: Frame, upright: Sequence[Face], side: int) -> None:
        """Process a frame in which `upright` faces were found on a thumbnail whose longer side is `side`."""
        if self.quarters is not None:
            return
        pts = frame.pts_seconds
        if self._first_pts is None:
            self._first_pts = pts
        if pts > self._first_pts + FIRST_S:
            self.conclude()
            return
        found = [face for face in upright if face.score >= self._high_score]
        if not found and not self.suspects:
            if self._probes == len(PROBES_S) or pts < self._first_pts + PROBES_S[self._probes]:
                return
            self._probes += 1
        elif pts < self._looked_pts + EVERY_S:
            return
        self._looked_pts = pts
        self._take(frame, max((face.score for face in found if _tilt(face) <= LEAN), default=0.0), side)

    def conclude(self) -> None:
        """Decide from the frames so far, because the first seconds are over or the source has ended."""
        if self.quarters is not None:
            return
        self.quarters = 0
        if len(self._agreeing) >= AGREEING and self._unclear < len(self._agreeing):
            quarters = self._agreeing[0][0]
            scores = np.mean([scores for _, scores in self._agreeing], axis=0)
            if scores[quarters] - np.delete(scores, quarters).max() >= MARGIN:
                self.quarters = quarters

    def _take(self, frame: Frame, upright: float, side: int) -> None:
        small = frame.thumbnail(max(1, round(side / SHRINK)))
        first = self._clearest(small, (0,)) if upright >= SURE else {}
        if first and _score(first[0]) >= SURE:
            self.quarters = 0
            return
        first |= self._clearest(small, (1, 3))
        if max(_score(first[1]), _score(first[3])) < SCORE:
            self._upright += upright >= SURE
            if self._upright == AGREEING:
                self.quarters = 0
            return
        first |= self._clearest(small, (2,) if 0 in first else (0, 2))
        again = self._clearest(frame.thumbnail(side), (1, 2, 3))
        scores = np.array([min(_score(first[one]), _score(again[one]) if one else upright) for one in _QUARTERS])
        quarters = int(scores.argmax())
        if quarters not in (1, 3) or not _is_same(first[quarters], again[quarters]):
            self._unclear += 1
        elif self._agreeing and self._agreeing[0][0] != quarters:
            self.quarters = 0
        else:
            self._agreeing.append((quarters, scores))

    def _clearest(self, thumbnail: Array, turns: Sequence[int]) -> dict[int, Face | None]:
        """For each number of quarter turns, the roughly upright face with the highest score in the rotated picture."""
        pictures = [np.ascontiguousarray(np.rot90(thumbnail, -quarters)) for quarters in turns]
        return {
            quarters: max(
                (face for face in faces if _tilt(face) <= LEAN), key=lambda face: face.score, default=None
            )
            for quarters, faces in zip(turns, self._detect(pictures), strict=True)
        }


def _score(face: Face | None) -> float:
    return 0.0 if face is None else face.score


def _is_same(small: Face | None, large: Face | None) -> bool:
    """Whether the faces found at the two sizes are the same face, and whether it is upright with a high score at both
    sizes."""
    if small is None or large is None or min(small.score, large.score) < SCORE:
        return False
    if max(_tilt(small), _tilt(large)) > TILT:
        return False
    return bool(iou(small.box[None] * SHRINK, large.box[None])[0, 0] >= OVERLAP)


def _tilt(face: Face) -> float:
    """Tilt of the line through the eyes in degrees; 180 unless the eyes are above the nose and the nose is above the
    mouth."""
    left, right, nose, *mouth = np.asarray(face.landmarks, np.float64)
    tilt = np.degrees(np.arctan2(right[1] - left[1], right[0] - left[0]))
    eyes, lips = (left[1] + right[1]) / 2, (mouth[0][1] + mouth[1][1]) / 2
    return float(abs(tilt)) if eyes < nose[1] < lips else 180.0
