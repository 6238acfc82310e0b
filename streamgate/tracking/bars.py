"""Detects black letterbox and pillarbox bars, which are not part of the picture."""

from __future__ import annotations

import numpy as np

from streamgate.frames import Array, Frame

SPAN_S = 1.0
"""Seconds from the start of a shot in which bars are detected. A line belongs to a bar if it is black in all frames
that are sampled in this time."""
_SAMPLES = 4
_BLACK = 26
"""Maximum luma of a bar's brightest pixels; it allows for coding noise and ringing."""
_SPREAD = 4.0
"""Maximum standard deviation of luma along a line of a bar. A dark wall or a night sky exceeds this limit or has no
straight edge."""
_STEP = 14.0
"""Minimum difference in mean luma between a bar and the brighter picture next to it."""
_MOST = 0.4
"""A bar covers less than this share of the height or width of a frame."""
_LEAST = 2
"""Minimum number of lines of a bar; a single dark line at the edge of a picture is probably a coding artefact."""
_EVERY = 4
"""Distance in pixels between the examined pixels of a line."""


class BarDetector:
    """Finds the black bars of consecutive shots."""

    def __init__(self) -> None:
        self._shown: Array | None = None
        self._began = self._next = -np.inf

    def shown(self, frame: Frame, *, new_shot: bool) -> Array:
        """The part of an upright frame that is not covered by bars, [x1, y1, x2, y2] in pixels.

        Call once per frame, in order.
        """
        now = frame.pts_seconds
        if new_shot or self._shown is None:
            self._shown, self._began, self._next = None, now, now
        if now >= self._next and now <= self._began + SPAN_S:
            found = _without_bars(frame)
            if self._shown is not None:
                # The bars do not change within a shot, so for each bar the smallest detected size is the right one.
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
    # Examine one block of lines at a time, because in most pictures not even the first line is black.
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
    # Skip two lines at the border, where the bar and the picture are blended.
    beside = float(lines[count + 2 : count + 6].mean())
    return count if beside - bar >= _STEP else 0
