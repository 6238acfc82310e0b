"""Black bars: letterbox and pillarbox bars are not part of the picture."""

from __future__ import annotations

import numpy as np

from streamgate.frames import Array, Frame

SPAN_S = 1.0
"""Bars of a shot are detected in its first second: what is black in all samples of it."""
_SAMPLES = 4
_BLACK = 26
"""Highest luma of a bar's brightest pixels, including coding noise and ringing."""
_SPREAD = 4.0
"""Highest standard deviation of luma along a line of a bar; a dark wall or a night sky has more or no straight edge."""
_STEP = 14.0
"""Minimum difference in mean luma between a bar and the brighter picture next to it."""
_MOST = 0.4
"""Largest share of a side that one bar may take."""
_LEAST = 2
"""Minimum number of lines of a bar, since codecs leave a dark line or two at the edge."""
_EVERY = 4
"""Every n-th pixel of a line is examined."""


class BarDetector:
    """Finds the black bars of consecutive shots."""

    def __init__(self) -> None:
        self._shown: Array | None = None
        self._began = self._next = -np.inf

    def shown(self, frame: Frame, *, new_shot: bool) -> Array:
        """The part of an upright frame inside the bars, [x1, y1, x2, y2] in its pixels; the whole frame without bars.

        Call once per frame, in order.
        """
        now = frame.pts_seconds
        if new_shot or self._shown is None:
            self._shown, self._began, self._next = None, now, now
        if now >= self._next and now <= self._began + SPAN_S:
            found = _without_bars(frame)
            if self._shown is not None:
                # Bars are constant, so the smallest one seen counts.
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
    """Number of black lines at the start and at the end of `lines`, luma uint8 (n, m)."""
    return _black(lines), _black(lines[::-1])


def _black(lines: Array) -> int:
    most = int(_MOST * len(lines))
    count = 0
    # In blocks: in most pictures the first line is already not black.
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
    # One or two lines at the border are a mixture of both.
    beside = float(lines[count + 2 : count + 6].mean())
    return count if beside - bar >= _STEP else 0
