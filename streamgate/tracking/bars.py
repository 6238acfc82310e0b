"""Black bars: letter and pillar boxes are no part of the picture."""

from __future__ import annotations

import numpy as np

from streamgate.frames import Array, Frame

SPAN_S = 1.0
"""Bars of a shot are found in its first second: what is black by then in every sample."""
_SAMPLES = 4
_BLACK = 26
"""Luma of the brightest pixels of a bar, noise and ringing of the coder included."""
_SPREAD = 4.0
"""Standard deviation of luma along a line of a bar; a dark wall or a night sky has more, or no straight border."""
_STEP = 14.0
"""Mean luma by which the picture beside a bar is brighter than the bar."""
_MOST = 0.4
"""Share of a side that one bar takes at most."""
_LEAST = 2
"""Pixels of a bar at least: coders leave a dark line or two at the edge."""
_EVERY = 4
"""Of a line's pixels one in so many is looked at."""


class BarDetector:
    """Finds the black bars of one shot after the other."""

    def __init__(self) -> None:
        self._shown: Array | None = None
        self._began = self._next = -np.inf

    def shown(self, frame: Frame, *, new_shot: bool) -> Array:
        """What the bars leave of an upright frame, [x1, y1, x2, y2] in its pixels; all of it where there are none.

        To be asked once for every frame, in order.
        """
        now = frame.pts_seconds
        if new_shot or self._shown is None:
            self._shown, self._began, self._next = None, now, now
        if now >= self._next and now <= self._began + SPAN_S:
            found = _without_bars(frame)
            if self._shown is not None:
                # Bars are constant: the smallest that was seen counts.
                found = np.concatenate([np.minimum(found[:2], self._shown[:2]), np.maximum(found[2:], self._shown[2:])])
            self._shown = found
            self._next = now + SPAN_S / _SAMPLES
        assert self._shown is not None
        return self._shown


def _without_bars(frame: Frame) -> Array:
    luma = frame.luma()
    height, width = luma.shape
    top, bottom = _ends(luma[:, ::_EVERY])
    left, right = _ends(luma[top : height - bottom : _EVERY].T)
    return np.array([left, top, width - right, height - bottom], np.float64)


def _ends(lines: Array) -> tuple[int, int]:
    """Black lines at the beginning and at the end of `lines`, luma uint8 (n, m)."""
    return _black(lines), _black(lines[::-1])


def _black(lines: Array) -> int:
    most = int(_MOST * len(lines))
    count = 0
    # In blocks: of most pictures the first line already tells.
    while count < most:
        block = lines[count : count + 16]
        dark = (np.percentile(block, 99, axis=1) <= _BLACK) & (block.std(axis=1) <= _SPREAD)
        run = len(block) if dark.all() else int(np.argmin(dark))
        count += run
        if run < len(block):
            break
    if not _LEAST <= count < most:
        return 0
    bar = float(lines[max(0, count - 4) : count].mean())
    # A line or two at the border is a mixture of both.
    beside = float(lines[count + 2 : count + 6].mean())
    return count if beside - bar >= _STEP else 0
