"""The geometry that makes a stored picture upright: display rotation, flips and non-square pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from streamgate.frames import Array

Turn = tuple[int, int, int, int]
"""Row-major 2 x 2 matrix of quarter turns and flips that takes the stored orientation to the upright one."""

UNTURNED: Turn = (1, 0, 0, 1)

_IMPLAUSIBLE = 8  # a larger sample aspect ratio is a sign of damage and would result in giant pictures


@dataclass(frozen=True, slots=True)
class Upright:
    """The geometry of the upright picture relative to the stored one.

    Non-square pixels are stretched to squares in such a way that no detail is lost: the stored width is multiplied by
    the sample aspect ratio if this ratio is above 1; if it is below 1, the stored height is divided by it.

    Attributes:
        width, height: size of the upright picture in pixels.
        turn: the quarter turns and flips from the stored to the upright orientation.
        stretched: whether the stored pixels are not square, so that upright pixels are interpolated between them.
        to_stored: (2, 3) float64, maps upright pixel centres to stored pixel centres.
    """

    width: int
    height: int
    turn: Turn
    stretched: bool
    to_stored: Array

    def stored_box(self, box: Array) -> Array:
        """Map a box of upright pixel edges to the stored pixel edges that enclose it, float64 (4,)."""
        corners = np.array([[box[0], box[1], 1.0], [box[2], box[3], 1.0]]) - [0.5, 0.5, 0.0]
        ends = corners @ self.to_stored.T + 0.5
        return np.concatenate([ends.min(axis=0), ends.max(axis=0)])


@lru_cache(maxsize=64)
def upright(width: int, height: int, turn: Turn = UNTURNED, aspect: Fraction | None = None) -> Upright:
    """The upright geometry of a stored picture; `aspect` is the sample aspect ratio."""
    stretch_x = stretch_y = 1.0
    if aspect is not None and aspect != 1 and 1 / _IMPLAUSIBLE < aspect < _IMPLAUSIBLE:
        if aspect > 1:
            stretch_x = max(1, round(width * aspect)) / width
        else:
            stretch_y = max(1, round(height / aspect)) / height
    stored_to_upright = np.array(turn, np.float64).reshape(2, 2) @ np.diag([stretch_x, stretch_y])
    ends = stored_to_upright @ np.array([width, height], np.float64)
    size = np.rint(np.abs(ends)).astype(int)
    shift = np.where(ends < 0, -ends, 0.0)
    linear = np.linalg.inv(stored_to_upright)
    # `stored_to_upright` maps pixel edges; pixel centres are shifted by half a pixel before and after.
    offset = linear @ (0.5 - shift) - 0.5
    matrix = np.column_stack([linear, offset])
    matrix.setflags(write=False)
    stretched = (stretch_x, stretch_y) != (1.0, 1.0)
    return Upright(int(size[0]), int(size[1]), turn, stretched, matrix)


def turn_of(display_matrix: bytes) -> Turn:
    """Return the quarter turns and flips that are nearest to an FFmpeg display matrix (nine native int32)."""
    a, b, _, c, d, _, _, _, _ = (int(value) for value in np.frombuffer(display_matrix, np.int32, 9))
    # x' = a x + c y, y' = b x + d y
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (_sign(a), 0, 0, _sign(d))
    return (0, _sign(c), _sign(b), 0)


def turned(turn: Turn, quarters: int) -> Turn:
    """`turn` followed by that many clockwise quarter turns."""
    for _ in range(quarters % 4):
        a, b, c, d = turn
        turn = (-c, -d, a, b)
    return turn


def turn_array(array: Array, turn: Turn) -> Array:
    """Return a view of `array` (h, w, ...), turned from the stored to the upright orientation."""
    if turn[0] == 0:
        array = array.swapaxes(0, 1)
        flip_x, flip_y = turn[1] < 0, turn[2] < 0
    else:
        flip_x, flip_y = turn[0] < 0, turn[3] < 0
    return array[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def _sign(value: int) -> int:
    return -1 if value < 0 else 1
