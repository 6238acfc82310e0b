"""Cuts: where one shot ends and another begins, unless the first comes back at once. A track never crosses one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np

from streamgate.config_sections import AdvancedConfig
from streamgate.frames import Array, Frame

GRID = (32, 18)
RETURN_S = 0.3
"""Time after a cut within which the shot before it may come back: a flash, a picture or two of something else."""
_ALIKE = 0.5
"""Share of a cut's difference up to which a frame shows what was seen before."""


class Change(Enum):
    """What a frame is to the one before it."""

    NONE = "the same shot"
    CUT = "a new shot"
    RETURN = "the shot before the last cut again, after `RETURN_S` at most"


@dataclass(frozen=True, slots=True)
class _LastShot:
    """The shot that the last cut left."""

    pts_seconds: float
    grid: Array
    recent: deque[tuple[float, float]]


class CutDetector:
    """Compares each frame with the one before it on a grid of luma samples.

    The difference is counted in the pictures' own contrast, so a cut in a dark hall weighs as much as one in
    daylight, and after a common change of brightness was taken out, so a fade is none. A cut has to
    stand out from the motion of the last second too: a shaking camera is none either.
    """

    def __init__(self, config: AdvancedConfig) -> None:
        self._config = config
        self.grid: Array | None = None
        """Of the last frame, see `grid_of`."""
        self._recent: deque[tuple[float, float]] = deque()
        self._left: _LastShot | None = None

    def look(self, frame: Frame) -> Change:
        """What `frame` is to the one before it. To be asked once for every frame, in order."""
        now = grid_of(frame)
        before, self.grid = self.grid, now
        if before is None:
            return Change.NONE
        if self._has_returned(frame.pts_seconds, now):
            return Change.RETURN
        difference = grid_difference(before, now)
        while self._recent and frame.pts_seconds - self._recent[0][0] > 1.0:
            self._recent.popleft()
        if difference >= self._config.cut_difference and difference >= self._config.cut_ratio * self._usual():
            if self._left is None:
                self._left = _LastShot(frame.pts_seconds, before, self._recent)
            self._recent = deque()
            return Change.CUT
        self._recent.append((frame.pts_seconds, difference))
        return Change.NONE

    def _has_returned(self, pts_seconds: float, now: Array) -> bool:
        left = self._left
        if left is None:
            return False
        if pts_seconds - left.pts_seconds > RETURN_S:
            self._left = None
            return False
        if grid_difference(left.grid, now) >= _ALIKE * self._config.cut_difference:
            return False
        self._left, self._recent = None, left.recent
        return True

    def _usual(self) -> float:
        """The median difference of the last second."""
        return float(np.median([value for _, value in self._recent])) if self._recent else 0.0


def grid_of(frame: Frame) -> Array:
    """The frame's luma as a grid float32 (18, 32), 0..1; a fraction of its pixels is read."""
    samples = frame.luma_samples(3 * GRID[0], 2 * GRID[1])
    return cv2.resize(samples, GRID, interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0


def grid_difference(before: Array, now: Array) -> float:
    """Mean absolute difference of two grids over their mean contrast; about 1 for unrelated pictures.

    On the marked clips cuts reach 0.69 and more; a passer-by who fills half the picture within a frame 0.55.
    """
    change = now - before
    contrast = (_deviation(before) + _deviation(now)) / 2
    # OpenCV and a partition instead of std, median and mean: this runs on every frame.
    middle = change.size // 2
    parts = np.partition(change, (middle - 1, middle), axis=None)
    median = float(parts[middle - 1] + parts[middle]) / 2
    # The constant keeps the noise of an almost empty picture (black, a wall) from looking like a change.
    return cv2.norm(change, np.full_like(change, median), cv2.NORM_L1) / change.size / (contrast + 0.02)


def _deviation(grid: Array) -> float:
    return float(cv2.meanStdDev(grid)[1][0, 0])
