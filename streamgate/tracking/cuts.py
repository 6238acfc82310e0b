"""Detects cuts between shots. A track never crosses a cut, unless the earlier shot returns within `RETURN_S`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np

from streamgate.config_sections import AdvancedConfig
from streamgate.frames import Array, Frame

GRID = (32, 18)
RETURN_S = 0.3
"""Seconds after a cut within which the previous shot may return, for example after a flash or an inserted picture."""
_LONG_GAP_S = 0.3
"""If two frames are at least this many seconds apart, no motion is subtracted from their difference."""
_SAME_PICTURE = 0.9
"""If the correlation of two grids is at least this, they show the same picture in brighter or dimmer light."""
_ALIKE = 0.5
"""A frame shows the previous shot if its difference from that shot is below this share of `advanced.cut_difference`."""


class Change(Enum):
    """How a frame relates to the previous one."""

    NONE = "the same shot"
    CUT = "a new shot"
    RETURN = "back to the shot before the last cut, within `RETURN_S`"


@dataclass(frozen=True, slots=True)
class _LastShot:
    """The shot that ended with the last cut."""

    pts_seconds: float
    grid: Array
    recent: deque[tuple[float, float]]


class CutDetector:
    """Compares each frame with the previous one on a grid of luma samples.

    The difference is relative to the contrast of the pictures, so a cut in a dark hall counts as much as a cut in
    daylight. A uniform change of brightness is removed first, and a picture that only becomes darker or brighter still
    counts as the same picture. Therefore, a fade or a light that is switched off is not taken for a cut. A cut must
    also stand out from the motion of the last second, so that camera shake is not taken for a cut.

    A cut is a change between two consecutive frames of the video, but some frames may not have been decoded. Therefore,
    the motion to be expected over the skipped frames is subtracted from the difference, and a fast pan is not taken for
    a cut.
    """

    def __init__(self, config: AdvancedConfig) -> None:
        self._config = config
        self.grid: Array | None = None
        """The grid of the last frame (see `grid_of`)."""
        self._recent: deque[tuple[float, float]] = deque()
        """For each frame of the last second: its time, and its difference from the previous decoded frame, divided by
        the number of frame intervals between the two."""
        self._last_pts = 0.0
        self._left: _LastShot | None = None

    def look(self, frame: Frame, following: Callable[[], Frame | None] | None = None) -> Change:
        """How `frame` relates to the previous frame. Call once per frame, in order.

        `following` returns the next frame. It is called only if frames before `frame` were not decoded and the
        difference looks like a cut.
        """
        now = grid_of(frame)
        before, self.grid = self.grid, now
        last_pts, self._last_pts = self._last_pts, frame.pts_seconds
        if before is None:
            return Change.NONE
        if self._has_returned(frame.pts_seconds, now):
            return Change.RETURN
        difference, missing = grid_difference(before, now), _missing(last_pts, frame)
        while self._recent and frame.pts_seconds - self._recent[0][0] > 1.0:
            self._recent.popleft()
        usual = self._usual()
        if (
            self._is_cut(difference, missing, usual, usual)
            and not _same_picture(before, now)
            and not (
                missing and following is not None and self._moves_on(before, frame, difference, missing, following())
            )
        ):
            if self._left is None:
                self._left = _LastShot(frame.pts_seconds, before, self._recent)
            self._recent = deque()
            return Change.CUT
        self._recent.append((frame.pts_seconds, difference / (1 + missing)))
        return Change.NONE

    def _is_cut(self, difference: float, missing: int, motion: float, usual: float) -> bool:
        """Whether a difference is large enough for a cut, after subtracting `motion` for each `missing` frame."""
        sudden = difference - missing * motion
        return sudden >= self._config.cut_difference and sudden >= self._config.cut_ratio * usual

    def _moves_on(
        self, before: Array, frame: Frame, difference: float, missing: int, following: Frame | None
    ) -> bool:
        """Whether the motion after `frame` explains `difference`, for example at the beginning of a pan."""
        if following is None or following.unrelated or self.grid is None:
            return False
        after = grid_of(following)
        if grid_difference(before, after) < _ALIKE * self._config.cut_difference:
            return False  # the previous shot returns
        motion = grid_difference(self.grid, after) / (1 + _missing(frame.pts_seconds, following))
        return not self._is_cut(difference, missing, motion, self._usual())

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
        """The median difference per frame interval of the last second."""
        return float(np.median([value for _, value in self._recent])) if self._recent else 0.0


def _missing(last_pts: float, frame: Frame) -> int:
    """Number of frames that were left out between the last decoded frame and `frame`; 0 after a long gap in time."""
    return frame.left_out if frame.pts_seconds - last_pts < _LONG_GAP_S else 0


def grid_of(frame: Frame) -> Array:
    """The luma of the frame as a coarse grid, float32 (18, 32), 0..1. Only a fraction of the pixels is read."""
    samples = frame.luma_samples(3 * GRID[0], 2 * GRID[1])
    return cv2.resize(samples, GRID, interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0


def grid_difference(before: Array, now: Array) -> float:
    """Mean absolute difference of two grids, divided by their mean contrast; about 1 for unrelated pictures.

    On the labelled clips, cuts give 0.69 and more; a passer-by who fills half the picture within one frame gives 0.55.
    """
    change = now - before
    contrast = (_deviation(before) + _deviation(now)) / 2
    # This runs on every frame, so it uses OpenCV and np.partition, which are faster than np.std, np.median and np.mean.
    middle = change.size // 2
    parts = np.partition(change, (middle - 1, middle), axis=None)
    median = float(parts[middle - 1] + parts[middle]) / 2
    # The constant prevents the noise of an almost empty picture (black, a wall) from counting as a change.
    return cv2.norm(change, np.full_like(change, median), cv2.NORM_L1) / change.size / (contrast + 0.02)


def _same_picture(before: Array, now: Array) -> bool:
    """Whether two grids differ mainly in their brightness and contrast."""
    if min(_deviation(before), _deviation(now)) < 1e-3:
        return False
    return float(np.corrcoef(before.ravel(), now.ravel())[0, 1]) >= _SAME_PICTURE


def _deviation(grid: Array) -> float:
    return float(cv2.meanStdDev(grid)[1][0, 0])
