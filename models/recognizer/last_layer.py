"""The last affine layer, solved instead of trained: ridge regression for the expected squared error under dropout.

Inverted dropout with drop rate p turns a feature x_k into x_k m_k / (1 - p), where m_k = 1 with probability 1 - p. The
mean of the result is x_k, its variance is p / (1 - p) x_k^2, and different features are uncorrelated. Therefore, the
expected squared distance of the embedding under dropout, A x~ + c, to a target t is the distance without dropout plus a
variance:

    E |A x~ + c - t|^2 = |A x + c - t|^2 + p / (1 - p) sum_k x_k^2 |A_k|^2          A_k: k-th column of A

Averaged over faces, this is ridge regression with a separate penalty for each column (Wager, Wang and Liang 2013,
"Dropout training as adaptive regularization"). Let C be the covariance of the features, B the covariance of targets and
features, and D = p / (1 - p) diag(mean x_k^2). Then:

    A = B (C + D)^-1,   c = mean(t) - A mean(x)

If the layer is trained on degraded crops, with the teacher's embeddings of the same crops as targets, it learns to be
as stable on bad faces as on good ones, which inverts SER-FIQ. Here, every face is used unchanged and as degraded or
covered copies, and the target of all copies is the teacher's embedding of the unchanged face. The regression then gives
the mean over possible faces: information that a bad picture lacks averages out, so the embedding becomes short, and
dropout changes its direction strongly.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch

from models.common.degrade import draw_mixture
from models.recognizer.architecture import FaceNetwork
from models.recognizer.covers import draw_cover
from models.recognizer.faces import FaceSet, centre
from models.recognizer.teacher import Teacher


@dataclass(frozen=True)
class Settings:
    """config.toml, [last_layer]: number of faces, degraded copies of each, p, share of copies with a cover."""

    faces: int
    copies: int
    drop_rate: float
    covered: float


def dropout_ridge(features: np.ndarray, targets: np.ndarray, drop_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """A [D, K] and c [D], float64, that minimise the expected loss above.

    features: [n, K], before dropout; targets: [n, D]. The bias is not penalised, because dropout does not affect it.
    """
    features, targets = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    x_mean, t_mean = features.mean(axis=0), targets.mean(axis=0)
    x, t = features - x_mean, targets - t_mean
    penalty = drop_rate / (1.0 - drop_rate) * np.square(features).mean(axis=0)
    # A feature that is zero everywhere has neither covariance nor penalty; any weight works, so zero is used.
    penalty = np.where(penalty > 0, penalty, 1.0)
    weight = np.linalg.solve(x.T @ x / len(x) + np.diag(penalty), x.T @ t / len(x)).T
    return weight, t_mean - weight @ x_mean


def solved(network: FaceNetwork, faces: FaceSet, indexes: np.ndarray, settings: Settings, seed: int) -> FaceNetwork:
    """A copy of the network (on the CPU, eval mode) whose last layer is solved on `faces[indexes]`.

    Its drop rate is that of the settings. The faces must not belong to the calibration set or show real masks.
    """
    copied = copy.deepcopy(network).to("cpu").eval()
    crops = [centre(faces.faces[int(index)]) for index in indexes]
    pictures = list(crops)
    for copy_ in range(settings.copies):
        for i, crop in enumerate(crops):
            pictures.append(degraded(crop, np.random.default_rng((seed, copy_, i)), settings.covered))
    targets = np.tile(faces.embedding[indexes], (1 + settings.copies, 1))
    weight, bias = dropout_ridge(features_of(copied, np.stack(pictures)), targets, settings.drop_rate)
    put(copied, weight, bias)
    copied.drop_rate = settings.drop_rate
    return copied


def degraded(crop: np.ndarray, rng: np.random.Generator, covered: float) -> np.ndarray:
    """A crop uint8 [112, 112, 3] after random degradations and, with probability `covered`, under a cover."""
    changed = draw_mixture(rng).apply(crop, float(rng.uniform(0.2, 1.0)))
    if rng.random() < covered:
        changed = draw_cover(changed, rng, crop)[0]
    return np.ascontiguousarray(changed)


def put(network: FaceNetwork, weight: np.ndarray, bias: np.ndarray) -> None:
    """Make A x + c the network's last layer: the convolution gets A and c, and its batch norm becomes the identity."""
    layer, norm = network.backbone.conv3, network.backbone.bn
    assert layer.bias is not None and norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight)[:, :, None, None])
        layer.bias.copy_(torch.from_numpy(bias))
        norm.weight.fill_(1.0)
        norm.bias.zero_()
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0 - norm.eps)


def features_of(network: FaceNetwork, crops: np.ndarray, chunk: int = 32) -> np.ndarray:
    """Features float32 [n, 512] of crops uint8 [n, 112, 112, 3]."""
    folded = Teacher(network, torch.device("cpu"))
    parts = [
        folded.maps(folded.planes(torch.as_tensor(crops[start : start + chunk])))[-1].numpy()
        for start in range(0, len(crops), chunk)
    ]
    return np.concatenate(parts)
