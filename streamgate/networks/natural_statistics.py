"""NIQE and BRISQUE: how natural the texture of a picture is, measured by statistics of its normalised luma."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from streamgate.frames import Array

_SIDE = 96
"""Side of the blocks at NIQE's first scale, in pixels."""


@cache
def _shapes() -> tuple[Array, Array, Array, Array]:
    """Shapes of a generalised Gaussian, and for each shape three ratios: squared mean magnitude / variance, and the two
    that `_fitted` returns."""
    shapes = np.arange(0.2, 10.001, 0.001)
    one, two, three = (np.vectorize(math.gamma)(number / shapes) for number in (1, 2, 3))
    return shapes, two**2 / (one * three), two / one, np.sqrt(one / three)


def _fitted(values: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Fit an asymmetric generalised Gaussian by moments to each row of `values` (n, m).

    Returns shape, left and right deviation, and the ratios gamma(2/s)/gamma(1/s) and sqrt(gamma(1/s)/gamma(3/s)).
    """
    shapes, ratios, means, scales = _shapes()
    left = np.sqrt(np.where(values < 0, values**2, 0).sum(1) / np.maximum((values < 0).sum(1), 1))
    right = np.sqrt(np.where(values > 0, values**2, 0).sum(1) / np.maximum((values > 0).sum(1), 1))
    ratio = left / np.maximum(right, 1e-12)
    flat = np.abs(values).mean(1) ** 2 / np.maximum((values**2).mean(1), 1e-12)
    flat = flat * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    # The ratios increase with the shape, so a binary search finds the nearest one.
    index = np.clip(np.searchsorted(ratios, flat), 1, len(shapes) - 1)
    index = index - (flat - ratios[index - 1] < ratios[index] - flat)
    return shapes[index], left, right, means[index], scales[index]


def niqe(parameters: bytes) -> Callable[[Array], float]:
    """A function that returns the distance of a picture's statistics from those of undistorted photographs.

    The function takes RGB uint8 (H, W, 3) with at least 192 pixels on each side; 0 means no difference. `parameters`
    are the bytes of a NumPy archive with mu_pris_param, cov_pris_param and gaussian_window. Raises ValueError for other
    content.
    """
    with np.load(io.BytesIO(parameters), allow_pickle=False) as stored:
        usual, covariance = stored["mu_pris_param"].ravel(), stored["cov_pris_param"]
        window = stored["gaussian_window"]
    if usual.shape != (36,) or covariance.shape != (36, 36) or window.ndim != 2:
        raise ValueError("not NIQE parameters")

    def rate(picture: Array) -> float:
        # The parameters were fitted to BT.601 luma in the range 16..235.
        luma = np.round(16 + picture.astype(np.float64) / 255 @ np.array([65.481, 128.553, 24.966]))
        luma = luma[: luma.shape[0] // _SIDE * _SIDE, : luma.shape[1] // _SIDE * _SIDE]
        features = []
        for block in (_SIDE, _SIDE // 2):
            mean, square = (
                cv2.filter2D(pixels, -1, window, borderType=cv2.BORDER_REPLICATE) for pixels in (luma, luma**2)
            )
            normal = (luma - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)
            rows, columns = normal.shape[0] // block, normal.shape[1] // block
            blocks = normal.reshape(rows, block, columns, block).transpose(0, 2, 1, 3).reshape(-1, block, block)
            features.append(_niqe_features(blocks))
            luma = _halved(luma)
        found = np.concatenate(features, axis=1)
        offset = usual - found.mean(0)
        spread = (covariance + np.cov(found, rowvar=False)) / 2
        return float(np.sqrt(offset @ np.linalg.pinv(spread) @ offset))

    return rate


def _niqe_features(blocks: Array) -> Array:
    """(n, side, side) -> (n, 18)."""
    count = len(blocks)
    shape, left, right, _, scale = _fitted(blocks.reshape(count, -1))
    features = [shape, (left + right) / 2 * scale]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        product = (blocks * np.roll(blocks, shift, axis=(1, 2))).reshape(count, -1)
        shape, left, right, mean, scale = _fitted(product)
        left, right = left * scale, right * scale
        features += [shape, (right - left) * mean, left, right]
    return np.stack(features, axis=1)


def _halved(luma: Array) -> Array:
    """Halve the size with the anti-aliased bicubic filter that the parameters were fitted with."""
    x = np.abs(np.arange(-3.5, 4) / 2)
    taps = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
    taps /= taps.sum()
    wide = cv2.copyMakeBorder(luma, 3, 4, 3, 4, cv2.BORDER_REFLECT)
    return np.asarray(cv2.sepFilter2D(wide, -1, taps, taps, anchor=(3, 3))[3:-4:2, 3:-4:2])


def brisque(model: bytes, ranges: bytes) -> Callable[[Array], float]:
    """A function that returns the distortion of a picture RGB uint8 (H, W, 3), about 0 (none) to 100.

    `model` and `ranges` are the content of OpenCV's brisque_model_live.yml and brisque_range_live.yml. Raises
    ValueError for other content.
    """
    storage, bounds = (
        cv2.FileStorage(text.decode(), cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY) for text in (model, ranges)
    )
    svm = storage.getNode("opencv_ml_svm")
    rows, decision = svm.getNode("support_vectors"), svm.getNode("decision_functions").at(0)
    weights, index = decision.getNode("alpha"), decision.getNode("index")
    range_node = bounds.getNode("range")
    if rows.empty() or weights.empty() or range_node.empty():
        raise ValueError("not a BRISQUE model")
    gamma = svm.getNode("kernel").getNode("gamma").real()
    vectors = np.array([[rows.at(i).at(j).real() for j in range(36)] for i in range(rows.size())])
    rho = decision.getNode("rho").real()
    alpha = np.array([weights.at(i).real() for i in range(weights.size())])
    if not index.empty():
        vectors = vectors[[int(index.at(i).real()) for i in range(index.size())]]
    low, high = range_node.mat()

    def rate(picture: Array) -> float:
        luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        smaller = cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
        features = np.array(_brisque_features(luma) + _brisque_features(smaller))
        scaled = -1 + 2 * (features - low) / (high - low)
        kernel = np.exp(-gamma * ((vectors - scaled) ** 2).sum(1))
        return float(alpha @ kernel - rho)

    return rate


def _brisque_features(luma: Array) -> list[float]:
    def soft(pixels: Array) -> Array:
        return np.asarray(cv2.GaussianBlur(pixels, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE))

    mean = soft(luma)
    normal = (luma - mean) / (np.sqrt(np.abs(soft(luma * luma) - mean * mean)) + 1 / 255)
    shape, left, right, _, _ = _fitted(normal.reshape(1, -1))
    features = [float(shape[0]), float((left[0] ** 2 + right[0] ** 2) / 2)]
    height, width = luma.shape
    for dy, dx in ((0, 1), (1, 0), (1, 1), (-1, 1)):
        shifted = np.zeros_like(normal)
        shifted[max(0, -dy) : height - max(0, dy), : width - dx] = normal[max(0, dy) : height + min(0, dy), dx:]
        shape, left, right, ratio, scale = _fitted((normal * shifted).reshape(1, -1))
        features += [float(shape[0]), float((right[0] - left[0]) * scale[0] * ratio[0])]
        features += [float(left[0] ** 2), float(right[0] ** 2)]
    return features
