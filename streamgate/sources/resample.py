"""Affine resampling of one picture plane, with anti-aliasing when downscaling."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from streamgate.frames import Array

_MARGIN = 4  # pixels around the covered part, which cubic interpolation needs as neighbours


class ResampleOptions(NamedTuple):
    """How exactly `sample` resamples.

    Attributes:
        slack: displacements of up to this many result pixels may be ignored to save time.
        shrink_from: number of plane pixels per result pixel above which area averaging precedes interpolation.
        lanczos: downscale with a windowed sinc instead of area averaging. The result is sharper and has less aliasing,
            but computing it takes several times as long.
    """

    slack: float
    shrink_from: float
    lanczos: bool = False


EXACT = ResampleOptions(0.02, 1.2)
"""For crops. If a crop is shrunk by a factor below 1.2, the aliasing of plain interpolation is not visible."""

FINE = ResampleOptions(0.02, 1.1, lanczos=True)
"""For pictures that are written to the results."""

COARSE = ResampleOptions(0.6, 2.0)
"""For a detector's thumbnails, because detectors tolerate aliasing. Area averaging is used only for factors above 2."""


def sample(
    plane: Array, to_plane: Array, size: tuple[int, int], interpolation: int, care: ResampleOptions = EXACT
) -> Array:
    """Resample `plane` (h, w[, c]) into a picture of `size` (width, height) and of the same type.

    Args:
        plane: uint8 or uint16 samples; rows may be strided.
        to_plane: (2, 3) matrix that maps pixel centres of the result to pixel centres of the plane.
        size: (width, height) of the result.
        interpolation: an OpenCV interpolation flag, used where the plane is not shrunk.
        care: how exactly to resample.

    Result pixels outside the plane repeat its edge. When downscaling, the part of the plane that the result covers is
    first averaged by area to the scale of the result or, with `lanczos`, filtered on a finer grid.
    """
    slack, shrink_from, lanczos = care
    matrix = np.array(to_plane, np.float64)
    part, left, top = _covered(plane, matrix, size)
    matrix[:, 2] -= (left, top)
    shrink_x, shrink_y = (max(1.0, math.hypot(across, down)) for across, down, _ in matrix.tolist())
    if lanczos and max(shrink_x, shrink_y) > shrink_from:
        return _lanczos(part, matrix, size, interpolation, (shrink_x, shrink_y))
    if max(shrink_x, shrink_y) > shrink_from:
        part, matrix = _shrink(part, matrix, shrink_x, shrink_y, shrink_from)
    width, height = size
    rows, columns = part.shape[:2]
    if _is_resize(matrix, columns / width, rows / height, size, slack):
        if (columns, rows) == size:
            return part.copy() if part.base is not None else part
        return cv2.resize(part, size, interpolation=interpolation)
    return cv2.warpAffine(
        part, matrix, size, flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


_LOBES = 3
_BLOCK_BYTES = 1 << 17
"""Maximum size of the filter's working arrays in bytes, so that they fit into the processor's cache."""
_MAX_STEPS = 16


def _lanczos(
    part: Array, matrix: Array, size: tuple[int, int], interpolation: int, shrink: tuple[float, float]
) -> Array:
    """Interpolate on a grid at least as fine as the plane, then reduce it by integer steps with a Lanczos-3 filter.

    The filter runs along the axes of the result, so that rotated pictures have the same quality as upright ones.
    """
    while max(shrink) > _MAX_STEPS:
        # The filter that follows removes the artefacts of this coarse reduction.
        part, matrix = _shrink(part, matrix, 2.0, 2.0, 1.0)
        shrink = (shrink[0] / 2, shrink[1] / 2)
    steps = [max(1, int(np.ceil(one - 1e-6))) for one in shrink]
    # Extra result pixels around the picture, which the filter needs at the border.
    room = [_LOBES if step > 1 else 0 for step in steps]
    finer = np.array([[1 / steps[0], 0.0, 0.5 / steps[0] - 0.5 - room[0]],
                      [0.0, 1 / steps[1], 0.5 / steps[1] - 0.5 - room[1]]])  # fmt: skip
    to_plane = matrix @ np.vstack([finer, [0.0, 0.0, 1.0]])
    width, height = ((size[axis] + 2 * room[axis]) * steps[axis] for axis in (0, 1))
    fine = cv2.warpAffine(
        part, to_plane, (width, height), flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    reduced = _reduce(_reduce(fine, 0, size[1], steps[1]), 1, size[0], steps[0])
    np.rint(reduced, out=reduced)
    return np.clip(reduced, 0, np.iinfo(part.dtype).max, out=reduced).astype(part.dtype)


def _reduce(fine: Array, axis: int, count: int, step: int) -> Array:
    """Reduce `axis` to `count` samples, each a weighted mean of the fine samples around it; returns float32."""
    if step == 1:
        return fine.astype(np.float32)
    centre = (_LOBES + 0.5) * step - 0.5
    indexes = np.arange(int(np.floor(centre - _LOBES * step)) + 1, int(np.ceil(centre + _LOBES * step)))
    offsets = (indexes - centre) / step
    weights = np.sinc(offsets) * np.sinc(offsets / _LOBES)
    weights = (weights / weights.sum()).astype(np.float32)
    shape = list(fine.shape)
    shape[axis] = count
    total = np.zeros(shape, np.float32)
    # A few rows are computed at a time: in a service, each large temporary array is returned to the operating system,
    # and allocating it again takes several times as long as the computation.
    rows = max(1, _BLOCK_BYTES * shape[0] // total.nbytes)
    room = np.empty((min(rows, shape[0]), *shape[1:]), np.float32)
    for top in range(0, shape[0], rows):
        part = total[top : top + rows]
        product = room[: len(part)]
        for index, weight in zip(indexes.tolist(), weights, strict=True):
            if axis == 0:
                first = top * step + index
                samples = fine[first : first + (len(part) - 1) * step + 1 : step]
            else:
                samples = fine[top : top + len(part), index : index + (count - 1) * step + 1 : step]
            part += np.multiply(samples, weight, out=product)
    return total


def _covered(plane: Array, matrix: Array, size: tuple[int, int]) -> tuple[Array, int, int]:
    """The part of the plane that the result covers (never empty), and the position of its left and top edges."""
    # Uses plain Python numbers: for so few values, numpy would take as long as the resampling itself.
    spans = []
    for (across, down, shift), length in zip(matrix.tolist(), (plane.shape[1], plane.shape[0]), strict=True):
        ends = [(across * -0.5, across * (size[0] - 0.5)), (down * -0.5, down * (size[1] - 0.5))]
        reach = _MARGIN * max(1.0, math.hypot(across, down))
        low = math.floor(shift + sum(map(min, ends)) - reach)
        high = math.ceil(shift + sum(map(max, ends)) + reach)
        begin = min(max(low, 0), length - 1)
        spans.append(_even(begin, min(max(high, begin + 1), length), length))
    (left, right), (top, bottom) = spans
    return plane[top:bottom, left:right], left, top


def _even(begin: int, end: int, length: int) -> tuple[int, int]:
    """Widen an odd span by one if there is room, because even spans can be halved quickly."""
    if (end - begin) % 2:
        if end < length:
            return begin, end + 1
        if begin > 0:
            return begin - 1, end
    return begin, end


def _shrink(
    part: Array, matrix: Array, shrink_x: float, shrink_y: float, shrink_from: float
) -> tuple[Array, Array]:
    """Average by area until the remaining factor is at most `shrink_from`; returns the smaller part and its matrix."""
    rows, columns = part.shape[:2]
    size = (max(1, round(columns / shrink_x)), max(1, round(rows / shrink_y)))
    # OpenCV vectorises halving but not averaging by other factors, so halve the part as often as possible first.
    while min(part.shape[1] / size[0], part.shape[0] / size[1]) >= 2:
        if part.shape[0] % 2 or part.shape[1] % 2:
            break
        half = (part.shape[1] // 2, part.shape[0] // 2)
        part = cv2.resize(part, half, interpolation=cv2.INTER_AREA)
    if max(part.shape[1] / size[0], part.shape[0] / size[1]) > shrink_from:
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    ratio = np.array([part.shape[1] / columns, part.shape[0] / rows])
    matrix = matrix * ratio[:, None]
    matrix[:, 2] += 0.5 * ratio - 0.5
    return part, matrix


def _is_resize(matrix: Array, scale_x: float, scale_y: float, size: tuple[int, int], slack: float) -> bool:
    """Whether the matrix maps the whole result to the whole part, as `cv2.resize` does."""
    plain = ((scale_x, 0.0, scale_x / 2 - 0.5), (0.0, scale_y, scale_y / 2 - 0.5))
    return all(
        sum(abs(is_ - would) * far for is_, would, far in zip(row, wanted, (*size, 1.0), strict=True)) <= slack * scale
        for row, wanted, scale in zip(matrix.tolist(), plain, (scale_x, scale_y), strict=True)
    )
