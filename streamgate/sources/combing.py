"""Comb detection: whether a picture interleaves two moments line by line, judged by its pixels alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import cv2
import numpy as np
from av import VideoFrame

from streamgate.frames import Array
from streamgate.sources.layout import eight_bits, layouts, planes_of

MIN_SHARE = 4e-4
"""Minimum share of combed pixels in a picture that counts as combed. The sharpest progressive pictures have a tenth of
this share; combed pictures of faces that turn or blink have many times this share."""
_STEP = 8
"""Luma levels by which a line must differ from the lines above and below it."""
_RUN = np.ones((1, 5), np.uint8)
"""A run of adjacent pixels, all of which must differ by `_STEP` from the neighbouring lines, on three consecutive lines
that are alternately brighter and darker. Noise, dither and ringing do not produce runs of this length."""
_HEIGHTS = range(400, 1089)
"""Possible heights of interlaced video. Smaller pictures have been scaled down, which turns combing into blur."""
_BAND, _EVERY = 16, 64
"""16 of every 64 lines are examined."""
_FIRST = 12
_OFTEN, _SELDOM = 2, 24
"""Sampling intervals in frames: for the first `_FIRST` frames, and for all later frames."""
_AFTER_ONE = 8
"""Number of frames after a combed frame that are all examined."""
_MIN_COMBED = 3
"""The video is considered interlaced if at least this many of the last `_AFTER_ONE` examined frames are combed."""
_MAX_CLEAN = 15
"""The video is considered progressive again after this many consecutive examined frames without combing."""


def combed(luma: Array) -> Array:
    """Mask of the combed pixels of `luma`, which is uint8 (h, w) with lines as stored.

    Returns uint8 (h - 4, w), 0 or 1; the first row is for line 2 of `luma`.
    """
    rises, falls = cv2.subtract(luma[1:], luma[:-1]), cv2.subtract(luma[:-1], luma[1:])
    brighter = cv2.erode(cv2.min(rises[:-1], falls[1:]), _RUN)
    darker = cv2.erode(cv2.min(falls[:-1], rises[1:]), _RUN)
    between_darker = cv2.min(brighter[1:-1], cv2.min(darker[:-2], darker[2:]))
    between_brighter = cv2.min(darker[1:-1], cv2.min(brighter[:-2], brighter[2:]))
    return cv2.threshold(cv2.max(between_darker, between_brighter), _STEP, 1, cv2.THRESH_BINARY)[1]


def is_combed(luma: Array) -> bool:
    """Whether a part of a picture, luma uint8 (h, w) with lines as stored, interleaves two moments."""
    if min(luma.shape) < _RUN.size:
        return False
    return cv2.countNonZero(combed(luma)) >= MIN_SHARE * luma.size


def comb_detector(interlaced: bool = False) -> Callable[[VideoFrame], bool]:
    """Return a function that detects, from a sample of the frames, interlaced video that is not flagged as interlaced.

    Call the function once per frame, in order; its result is based on this frame and earlier ones.

    Args:
        interlaced: whether an earlier pass found the video to be interlaced.
    """
    index, examine_next, clean_in_a_row = -1, 0, 0
    before: Array | None = None
    seen: deque[bool] = deque(maxlen=_AFTER_ONE)

    def is_interlaced(frame: VideoFrame) -> bool:
        nonlocal interlaced, index, examine_next, clean_in_a_row, before
        index, examine_next = index + 1, max(0, examine_next - 1)
        if not examine_next and index % (_OFTEN if index < _FIRST else _SELDOM):
            return interlaced
        lines = _some_lines(frame)
        if lines is None:
            return interlaced
        found = _within_bands(combed(lines))
        # A pattern that stays in place belongs to the scene; combing appears with motion.
        new = 0 if before is None or before.shape != found.shape else int(np.count_nonzero(found > before))
        before = found
        seen.append(new >= MIN_SHARE * found.size)
        if seen[-1]:
            examine_next, clean_in_a_row = 0 if interlaced else _AFTER_ONE, 0
        else:
            clean_in_a_row += 1
        interlaced = (interlaced and clean_in_a_row < _MAX_CLEAN) or sum(seen) >= _MIN_COMBED
        return interlaced

    return is_interlaced


def _some_lines(frame: VideoFrame) -> Array | None:
    """Luma uint8 of a frame's sampled bands, stacked; None if the frame cannot be combed."""
    layout = layouts().get(frame.format.name)
    if frame.height not in _HEIGHTS or layout is None or layout.kind == "packed":
        return None
    luma = planes_of(frame, layout)[0]
    count = frame.height // _EVERY
    bands = luma[: count * _EVERY].reshape(count, _EVERY, -1)[:, _EVERY // 2 :][:, :_BAND]
    lines = bands.reshape(count * _BAND, -1)
    return eight_bits(lines, layout)


def _within_bands(found: Array) -> Array:
    """The mask without the lines next to the seams between bands, where the mask is undefined."""
    whole = np.zeros((len(found) + 4, found.shape[1]), np.uint8)
    whole[2:-2] = found
    return np.ascontiguousarray(whole.reshape(-1, _BAND, found.shape[1])[:, 2:-2])
