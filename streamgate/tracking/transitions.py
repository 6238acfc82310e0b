"""Detects gradual transitions between shots: dissolves, fades and wipes. A track never crosses a transition."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from streamgate.frames import Array

LONGEST_S = 1.5
"""Longest span in seconds that is examined; the first and the last frame of a span are its ends. A longer transition is
detected only if a part of it changes enough within this time."""
_SPANS_S = (0.3, 0.6, 1.0, LONGEST_S)
_STEP_S = 1 / 16
"""Minimum interval in seconds between compared frames."""
_CHANGE = 0.5
"""Minimum difference between the ends of a span for them to belong to two shots (relative to contrast, as for cuts)."""
_DETOUR = 1.35
"""Largest ratio of the sum of the changes along a span to the change between its ends. The ratio is 1 if every sample
changes steadily from its old to its new value. With pans, zooms and moving people, where samples go up and down, the
ratio is 1.2 or more."""
_LEAP = 0.6
"""A single step that makes up more than this share of the change counts as a cut."""
_BLENDED = 0.13
"""Largest mean distance of the frames within a span from a mixture of its ends, relative to the change between the
ends. This distance is at most 0.05 in dissolves and fades, and at least 0.19 in other spans."""
_WIPE_CHANGE, _WIPE_DETOUR, _WIPED = 0.6, 1.15, 0.07
"""The corresponding limits for wipes, in which most samples belong entirely to one shot or to the other."""
_SAME_SCENE = 0.75
"""If the correlation of the ends is at least this value, only the light has changed, not the shot."""
_EMPTY = 0.015
"""Contrast below which a picture counts as empty, as between two fades; even a dark scene has more contrast."""
_MARGIN = 0.05
"""A frame is inside a transition if more than this share of the change precedes it and more than this share follows."""
_CORE = 0.2
"""Like `_MARGIN`, for the core of a transition."""
_SETTLED_S, _SETTLED = 0.4, 0.1
"""A frame is not in a transition if it differs by at most `_SETTLED` from a frame at least `_SETTLED_S` later."""


@dataclass(slots=True)
class _GridSample:
    pts_seconds: float
    grid: Array
    contrast: float
    step: float = 0.0
    """Mean absolute change from the previous compared frame."""
    inside: bool = False


class TransitionDetector:
    """Decides for each frame whether it is inside a gradual transition, with a delay of up to 1.5 s.

    It compares grids of luma (`cuts.grid_of`). Dissolves and fades mix two pictures, so all samples change steadily
    from their old to their new values, at the same rate. In a wipe, each sample has either its old or its new value.
    """

    def __init__(self) -> None:
        self._compared: list[_GridSample] = []
        self._waiting: list[_GridSample] = []

    def add(self, pts_seconds: float, grid: Array, *, new_shot: bool = False) -> list[bool]:
        """Add the next frame; `new_shot` says whether it follows a cut.

        Returns one value for each frame that can now be decided, in order: whether the frame is inside a transition.
        The first value is for the earliest frame for which no value was returned before.
        """
        settled = self.finish() if new_shot else []
        seen = _GridSample(pts_seconds, grid, float(cv2.meanStdDev(grid)[1][0, 0]))
        self._waiting.append(seen)
        if not self._compared or pts_seconds - self._compared[-1].pts_seconds >= _STEP_S - 1e-6:
            self._compare(seen)
            while self._is_settled(self._waiting[0], seen):
                settled.append(self._waiting.pop(0).inside)
        return settled

    def release(self) -> list[bool]:
        """Decide about the oldest waiting frame without waiting for more frames.

        Returns a list with the value of that frame, or an empty list if no frame is waiting.
        """
        return [self._waiting.pop(0).inside] if self._waiting else []

    def finish(self) -> list[bool]:
        """End the shot, and return the values of all waiting frames, as `add` does."""
        settled = [seen.inside for seen in self._waiting]
        self._waiting, self._compared = [], []
        return settled

    def _is_settled(self, seen: _GridSample, now: _GridSample) -> bool:
        age = now.pts_seconds - seen.pts_seconds
        if age > LONGEST_S:
            return True
        return age >= _SETTLED_S and not seen.inside and _difference(seen, now) <= _SETTLED

    def _compare(self, now: _GridSample) -> None:
        compared = self._compared
        if compared:
            now.step = _distance(now.grid, compared[-1].grid)
        compared.append(now)
        while now.pts_seconds - compared[0].pts_seconds > LONGEST_S + _STEP_S:
            compared.pop(0)
        first = len(compared) - 1
        for span in _SPANS_S:
            while first > 0 and now.pts_seconds - compared[first].pts_seconds < span - 1e-6:
                first -= 1
            if len(compared) - first < 4:
                continue
            self._mark(compared[first], compared[first + 1 : -1], now)

    def _mark(self, start: _GridSample, between: list[_GridSample], end: _GridSample) -> None:
        """Mark the frames between `start` and `end` that are inside a transition, if there is one."""
        steps = [seen.step for seen in (*between, end)]
        way, size = sum(steps), _distance(start.grid, end.grid)
        if way > _DETOUR * size or max(steps) > _LEAP * size or _difference(start, end) < _CHANGE:
            return
        change = end.grid - start.grid
        grids = np.stack([seen.grid for seen in between])
        share = ((grids - start.grid) * change).sum(axis=(1, 2)) / float((change * change).sum())
        mixed = start.grid + share[:, None, None] * change
        blended = float(np.abs(grids - mixed).mean()) <= _BLENDED * size
        if not blended:
            nearer = np.minimum(np.abs(grids - start.grid), np.abs(grids - end.grid)).mean(axis=(1, 2)).max()
            if way > _WIPE_DETOUR * size or nearer > _WIPED * size or _difference(start, end) < _WIPE_CHANGE:
                return
        inside = [index for index, part in enumerate(share.tolist()) if _MARGIN < part < 1 - _MARGIN]
        if not inside:
            return
        # Compare only the frames on either side of the core of the transition: further away from it, people may have
        # moved.
        core = [index for index in inside if _CORE < share[index] < 1 - _CORE] or inside
        before, after = [start, *between][core[0]], [*between, end][core[-1] + 1]
        if min(start.contrast, end.contrast) >= _EMPTY and _correlation(before, after) >= _SAME_SCENE:
            return
        first, last = between[inside[0]].pts_seconds, between[inside[-1]].pts_seconds
        for seen in self._waiting:
            # `_waiting` also contains the frames between the compared ones.
            if first - _STEP_S < seen.pts_seconds < last + _STEP_S:
                seen.inside = True


def _correlation(before: _GridSample, after: _GridSample) -> float:
    """Correlation of two grids; near 1 if they differ only in brightness or contrast."""
    if min(before.contrast, after.contrast) < 1e-6:
        return 0.0
    return float(np.corrcoef(before.grid.ravel(), after.grid.ravel())[0, 1])


def _distance(first: Array, second: Array) -> float:
    """Mean absolute difference of two grids, computed with OpenCV because it runs many times per second."""
    return cv2.norm(first, second, cv2.NORM_L1) / first.size


def _difference(before: _GridSample, now: _GridSample) -> float:
    """Like `cuts.grid_difference`, with the mean instead of the median."""
    change = cv2.subtract(now.grid, before.grid)
    common = np.full_like(change, cv2.mean(change)[0])
    return _distance(change, common) / ((before.contrast + now.contrast) / 2 + 0.02)
