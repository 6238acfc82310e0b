"""Fills the parts of kept pictures that lie outside the frame."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from streamgate.frames import Array, Picture

Pad = Literal["black", "reflect", "blur"]
"""Fill with black, with the picture mirrored at its border, or with the mirrored picture blurred increasingly with the
distance from the border, as in FFHQ's own pictures."""

_BLUR = 0.02
"""Standard deviation of the blur as a share of the picture's side."""
_ROWS = 32


def warp_padded(picture: Picture, matrix: Array, side: int, pad: Pad) -> Array:
    """`picture.warp(matrix, side, fine=True)`, with `pad` instead of the repeated edge outside the frame; RGB uint8
    (side, side, 3)."""
    crop = picture.warp(matrix, side, fine=True)
    back = cv2.invertAffineTransform(np.asarray(matrix, np.float64))
    right, bottom = picture.width - 1, picture.height - 1
    ends = np.array([[0, 0, 1], [side - 1, 0, 1], [0, side - 1, 1], [side - 1, side - 1, 1]], np.float64) @ back.T
    if (ends >= -0.5).all() and (ends <= (right + 0.5, bottom + 0.5)).all():
        return crop  # all corners are inside, so the whole square is inside
    into = np.asarray(matrix, np.float64)
    columns = np.arange(side, dtype=np.float64)[None]
    outside = np.zeros((side, side), bool)
    filled = crop.copy()
    # A few rows are processed at a time. The memory of larger arrays would be returned to the system after each call,
    # and allocating it again is slow.
    for top in range(0, side, _ROWS):
        part = slice(top, top + _ROWS)
        rows = np.arange(top, min(top + _ROWS, side), dtype=np.float64)[:, None]
        x = back[0, 0] * columns + back[0, 1] * rows + back[0, 2]
        y = back[1, 0] * columns + back[1, 1] * rows + back[1, 2]
        beyond = outside[part]
        beyond[...] = (x < -0.5) | (x > right + 0.5) | (y < -0.5) | (y > bottom + 0.5)
        if pad == "black":
            filled[part][beyond] = 0
        elif beyond.any():
            mirrored_x, mirrored_y = _mirrored(x, right), _mirrored(y, bottom)
            # Mirrored pixels are taken from the crop; positions outside the crop (when half the face is missing) are
            # mirrored again at its edge.
            map_x = (into[0, 0] * mirrored_x + into[0, 1] * mirrored_y + into[0, 2]).astype(np.float32)
            map_y = (into[1, 0] * mirrored_x + into[1, 1] * mirrored_y + into[1, 2]).astype(np.float32)
            mirrored = cv2.remap(crop, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
            np.copyto(filled[part], mirrored, where=beyond[..., None])
    if pad != "blur":
        return filled
    sigma = _BLUR * side
    soft = cv2.GaussianBlur(filled, (0, 0), sigma)
    # The blur begins at the border and has full strength three standard deviations further out.
    away = cv2.distanceTransform(outside.astype(np.uint8), cv2.DIST_L2, 3)
    share = np.clip(away / (3 * sigma), 0.0, 1.0)[..., None]
    return np.rint(filled * (1 - share) + soft * share).astype(np.uint8)


def _mirrored(position: Array, last: int) -> Array:
    """Mirror positions outside 0..last back into that range."""
    if last < 1:
        return np.zeros_like(position)
    folded = np.abs(position)
    if folded.max() >= 2 * last:  # rare; this check avoids computing remainders, which is slow
        folded %= 2 * last
    return np.where(folded > last, 2 * last - folded, folded)
