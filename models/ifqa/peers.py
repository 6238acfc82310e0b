"""The measures that IFQA is compared with. Each takes a picture uint8 [256, 256, 3] RGB, FFHQ-aligned, and returns a
value that is higher for better pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy.special import gamma as gamma_function

from models.common.align import FFHQ_EYES, FFHQ_MOUTH
from streamgate.networks.device import load_onnxruntime

Measure = Callable[[np.ndarray], float]
_SHAPES = np.arange(0.2, 10.001, 0.001)
# The squared mean magnitude of a generalised Gaussian, divided by its variance, for each shape.
_RATIOS = gamma_function(2 / _SHAPES) ** 2 / (gamma_function(1 / _SHAPES) * gamma_function(3 / _SHAPES))


def load_peers(folder: Path | None) -> tuple[dict[str, Measure], list[str]]:
    """The peers whose weights are in `folder`, and for each other peer a line with the names of the missing files."""
    wanted = {
        "NIQE": (("niqe_pris_params.npz",), Niqe),
        "BRISQUE": (("brisque_model_live.yml", "brisque_range_live.yml"), Brisque),
        "LightQNet": (("lightqnet-dm100.onnx",), LightQNet),
    }
    found: dict[str, Measure] = {}
    absent = []
    for name, (files, build) in wanted.items():
        missing = [f for f in files if folder is None or not (folder / f).is_file()]
        if missing:
            absent.append(f"{name}: {', '.join(missing)} not in {folder if folder else 'any --peers folder'}")
        else:
            found[name] = build(*(folder / f for f in files))
    return found, absent


def fit_asymmetric(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit an asymmetric generalised Gaussian to each row of [n, m] by moments: shape, left and right deviation, [n]."""
    left = np.sqrt(np.nansum(np.where(values < 0, values**2, 0), 1) / np.maximum((values < 0).sum(1), 1))
    right = np.sqrt(np.nansum(np.where(values > 0, values**2, 0), 1) / np.maximum((values > 0).sum(1), 1))
    ratio = left / np.maximum(right, 1e-12)
    flat = np.abs(values).mean(1) ** 2 / np.maximum((values**2).mean(1), 1e-12)
    flat = flat * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = _SHAPES[np.abs(_RATIOS[None, :] - flat[:, None]).argmin(1)]
    return shape, left, right


def _neighbour_means(shape: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (right - left) * gamma_function(2 / shape) / gamma_function(1 / shape)


class Niqe:
    """NIQE (Mittal et al. 2013) on BT.601 luma, 0..255: negated distance from the statistics of natural pictures."""

    def __init__(self, parameters: Path) -> None:
        with np.load(parameters) as stored:
            self.mean, self.covariance = stored["mu_pris_param"].ravel(), stored["cov_pris_param"]
            self.window = stored["gaussian_window"]

    def __call__(self, picture: np.ndarray) -> float:
        rgb = picture.astype(np.float64) / 255
        luma = np.round(16 + rgb @ np.array([65.481, 128.553, 24.966]))
        side = 96
        luma = luma[: luma.shape[0] // side * side, : luma.shape[1] // side * side]
        per_scale = []
        for block in (side, side // 2):
            mean = cv2.filter2D(luma, -1, self.window, borderType=cv2.BORDER_REPLICATE)
            square = cv2.filter2D(luma**2, -1, self.window, borderType=cv2.BORDER_REPLICATE)
            normal = (luma - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)
            rows, columns = normal.shape[0] // block, normal.shape[1] // block
            blocks = normal.reshape(rows, block, columns, block).transpose(0, 2, 1, 3).reshape(-1, block, block)
            per_scale.append(self._features(blocks))
            luma = halve(luma)
        features = np.concatenate(per_scale, 1)
        covariance = np.cov(features, rowvar=False)
        offset = self.mean - features.mean(0)
        return -float(np.sqrt(offset @ np.linalg.pinv((self.covariance + covariance) / 2) @ offset))

    @staticmethod
    def _features(blocks: np.ndarray) -> np.ndarray:
        """Features [n, 18] of blocks [n, b, b]."""
        n = len(blocks)
        shape, left, right = (v for v in fit_asymmetric(blocks.reshape(n, -1)))
        features = [shape, (_scale(shape, left) + _scale(shape, right)) / 2]
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
            product = (blocks * np.roll(blocks, shift, axis=(1, 2))).reshape(n, -1)
            shape, left, right = fit_asymmetric(product)
            left, right = _scale(shape, left), _scale(shape, right)
            features += [shape, _neighbour_means(shape, left, right), left, right]
        return np.stack(features, 1)


def _scale(shape: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return deviation * np.sqrt(gamma_function(1 / shape) / gamma_function(3 / shape))


def halve(luma: np.ndarray) -> np.ndarray:
    """Half the size, by MATLAB's anti-aliased bicubic interpolation, with which NIQE's parameters were fitted."""
    x = np.abs(np.arange(-3.5, 4) / 2)
    taps = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
    taps /= taps.sum()
    wide = cv2.copyMakeBorder(luma, 3, 4, 3, 4, cv2.BORDER_REFLECT)
    wide = cv2.sepFilter2D(wide, -1, taps, taps, anchor=(3, 3))
    return wide[3:-4:2, 3:-4:2]


class Brisque:
    """BRISQUE (Mittal et al. 2012) with OpenCV's model, which was trained on LIVE: the negated support-vector score."""

    def __init__(self, model: Path, value_range: Path) -> None:
        storage = cv2.FileStorage(str(model), cv2.FILE_STORAGE_READ)
        svm = storage.getNode("opencv_ml_svm")
        self.gamma = svm.getNode("kernel").getNode("gamma").real()
        rows = svm.getNode("support_vectors")
        self.vectors = np.array([[rows.at(i).at(j).real() for j in range(36)] for i in range(rows.size())])
        decision = svm.getNode("decision_functions").at(0)
        self.rho = decision.getNode("rho").real()
        alpha = decision.getNode("alpha")
        self.alpha = np.array([alpha.at(i).real() for i in range(alpha.size())])
        index = decision.getNode("index")
        if not index.empty():
            self.vectors = self.vectors[[int(index.at(i).real()) for i in range(index.size())]]
        # The storage owns the data of its nodes, so it must be kept alive while they are read.
        bounds = cv2.FileStorage(str(value_range), cv2.FILE_STORAGE_READ)
        self.low, self.high = bounds.getNode("range").mat()

    def __call__(self, picture: np.ndarray) -> float:
        luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        features: list[float] = []
        for scale in (1.0, 0.5):
            if scale != 1.0:
                luma = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            features += self._features(luma)
        scaled = -1 + 2 * (np.array(features) - self.low) / (self.high - self.low)
        kernel = np.exp(-self.gamma * ((self.vectors - scaled) ** 2).sum(1))
        return -float(self.alpha @ kernel - self.rho)

    @staticmethod
    def _features(luma: np.ndarray) -> list[float]:
        def soft(x: np.ndarray) -> np.ndarray:
            return cv2.GaussianBlur(x, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)

        mean = soft(luma)
        normal = (luma - mean) / (np.sqrt(np.abs(soft(luma * luma) - mean * mean)) + 1 / 255)
        shape, left, right = fit_asymmetric(normal.reshape(1, -1))
        features = [float(shape[0]), float((left[0] ** 2 + right[0] ** 2) / 2)]
        height, width = luma.shape
        for dy, dx in ((0, 1), (1, 0), (1, 1), (-1, 1)):
            shifted = np.zeros_like(normal)
            shifted[max(0, -dy) : height - max(0, dy), : width - dx] = normal[max(0, dy) : height + min(0, dy), dx:]
            shape, left, right = fit_asymmetric((normal * shifted).reshape(1, -1))
            spread = np.sqrt(gamma_function(1 / shape) / gamma_function(3 / shape))
            mean_parameter = _neighbour_means(shape, left * spread, right * spread)
            features += [float(shape[0]), float(mean_parameter[0]), float(left[0] ** 2), float(right[0] ** 2)]
        return features


class LightQNet:
    """LightQNet (Chen et al. 2021), a quality measure for recognition.

    The network's input is 96 x 96 px RGB, (x - 128) / 128, aligned by the eyes and the mouth.
    """

    # Places of the eyes and of the middle of the mouth, as shares of the input's side.
    TARGET = np.array([[0.3419, 0.4616], [0.6565, 0.4598], [0.5012, 0.8240]])

    def __init__(self, model: Path) -> None:
        onnxruntime = load_onnxruntime()

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        source = np.array([*FFHQ_EYES, FFHQ_MOUTH]) * 256
        self.matrix, _ = cv2.estimateAffinePartial2D(source, self.TARGET * 96)

    def __call__(self, picture: np.ndarray) -> float:
        # The face square is scaled by about 0.55, so it is smoothed first to avoid aliasing.
        face = cv2.warpAffine(cv2.GaussianBlur(picture, (0, 0), 0.7), self.matrix, (96, 96), flags=cv2.INTER_LINEAR)
        blob = ((face.astype(np.float32) - 128) / 128).transpose(2, 0, 1)[None]
        return float(self.session.run(None, {"input": blob})[0].ravel()[0])
