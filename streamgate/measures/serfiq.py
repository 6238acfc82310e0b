"""SER-FIQ: is it a robust, recognisable face? (Terhorst et al., CVPR 2020; docs/design.md 4.1)

With dropout before the last affine layer, the embeddings of a good face are close together. d is their mean pairwise
distance after L2 normalisation. This module computes d from samples and estimates it in closed form. The recognizer's
graph computes the closed form itself; `closed_form_spread` is the reference implementation.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np

from streamgate.faces import Evidence
from streamgate.frames import Array
from streamgate.measures.spec import Limit, MeasureSpec

_BLOCK = 128
_NOISE = 5e-15


def raw_from_spread(d: float) -> float:
    """The measure's raw value, 2 / (1 + exp(d)): 1 for d = 0, approaching 0 as d grows; NaN for NaN."""
    return 2.0 / (1.0 + math.exp(d))


def official(raw: float, alpha: float = 130.0, r: float = 0.88) -> float:
    """SER-FIQ's quality as published, 0..1: 1 / (1 + exp(-alpha (raw - r))). The defaults are for ArcFace-R100."""
    return _sigmoid(alpha * (raw - r))


def closed_form_spread(weight: Array, features: Array, bias: Array, drop_rate: float) -> float:
    """d without sampling, for the last layer `weight` (D, K) x + `bias` (D,) and x = `features` (K,).

    Dropout of unit k with probability p adds the variance x_k^2 p/(1-p) along the k-th column of `weight`. The part of
    this variance along the embedding vanishes under normalisation. Returns NaN if the embedding is zero.
    """
    weight, features = np.asarray(weight, np.float64), np.asarray(features, np.float64)
    embedding = weight @ features + np.asarray(bias, np.float64)
    power = float(embedding @ embedding)
    if power == 0.0:
        return math.nan
    across = (weight * weight).sum(axis=0) - (weight.T @ embedding) ** 2 / power
    trace = drop_rate / (1.0 - drop_rate) * float(np.sum(features**2 * across))
    # If the exact trace is zero, rounding can make it slightly negative.
    trace = max(trace, 0.0)
    return math.sqrt(2.0 * trace / (power + trace))


def sampled_spread(embeddings: Array) -> float:
    """d of stochastic embeddings (T, D), T >= 2: the mean distance of the T(T-1)/2 pairs of different rows.

    Computed in float64, because products in float32 are too imprecise for the distances of close embeddings. NaN if a
    row is zero.

    Raises:
        ValueError: fewer than two rows.
    """
    embeddings = np.asarray(embeddings, np.float64)
    count = len(embeddings)
    if count < 2:
        raise ValueError("the spread needs at least two stochastic embeddings")
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not np.all(lengths > 0):
        return math.nan
    unit = embeddings / lengths
    columns = np.ascontiguousarray(unit.T)
    total = 0.0
    # Computes only the pairs above the diagonal, one block of rows at a time, so that no T x T array is needed.
    for start in range(0, count, _BLOCK):
        halves = unit[start : start + _BLOCK] @ columns[:, start:]
        # Half the squared distance; _NOISE is subtracted so that identical rows have distance zero despite rounding.
        np.subtract(1.0 - _NOISE, halves, out=halves)
        np.maximum(halves, 0.0, out=halves)
        halves[np.tril_indices(len(halves))] = 0.0
        total += float(np.sqrt(halves, out=halves).sum())
    return math.sqrt(2.0) * total / (count * (count - 1) / 2)


def sample_embeddings(
    weight: Array, features: Array, bias: Array, drop_rate: float, count: int = 100, seed: int = 0
) -> Array:
    """`count` stochastic embeddings (count, D), float32, by inverted dropout on `features` (K,).

    Each unit is dropped in a share `drop_rate` of the passes, as closely as `count` allows. The passes in which a unit
    is dropped are drawn independently of the other units (Latin hypercube sampling). Most of the noise of plain dropout
    comes from how often each unit happens to be dropped. With 100 passes, the results of two seeds differ a quarter as
    much as with plain dropout. The masks depend on `seed` and on the features, so no two faces share the same masks.
    The value of a face depends neither on its batch nor on the faces that were scored before it.

    Because the drops are evenly distributed, the embeddings differ slightly more from each other than with independent
    drops. A shrink factor corrects this, so that their mean squared distance equals the expectation of plain dropout.
    """
    features = np.asarray(features, np.float32)
    rng = np.random.default_rng([seed, zlib.crc32(features.tobytes())])
    indexes = np.tile(np.arange(count, dtype=np.float32)[:, None], (1, len(features)))
    drawn = (rng.permuted(indexes, axis=0) + rng.random(indexes.shape, dtype=np.float32)) / count
    drops, more = divmod(drop_rate * count, 1.0)
    mixed = (1.0 - more) * drops * (count - drops) + more * (drops + 1) * (count - drops - 1)
    shrink = math.sqrt(drop_rate * (1.0 - drop_rate) * count * (count - 1) / mixed) if mixed else 1.0
    change = np.where(drawn >= drop_rate, drop_rate / (1.0 - drop_rate), -1.0).astype(np.float32)
    stochastic = features + np.float32(shrink) * features * change
    return np.asarray(stochastic @ np.asarray(weight, np.float32).T + np.asarray(bias, np.float32))


def _sigmoid(z: float) -> float:
    """The logistic function, without overflow for any z."""
    if z >= 0:
        return 1.0 / (1.0 + math.exp(-z))
    return math.exp(z) / (1.0 + math.exp(z))


def _read(output: Any) -> float:
    return float(output.spread)


def _raw(evidence: Evidence) -> float | None:
    """The raw value, 0..1; 1 for a face whose embedding does not change under dropout."""
    spread = evidence.values.get("spread")
    return None if spread is None else raw_from_spread(spread)


MEASURE = MeasureSpec(
    name="serfiq",
    label="SER-FIQ",
    hint="how reliably the face can be recognised",
    purpose="Is it a robust, recognisable face? Measured by how little dropout changes the recognizer's embedding.",
    source="recognizer",
    output="spread",
    read=_read,
    evidence=("spread",),
    raw=_raw,
    limits=(Limit("min", 30.0, {"serfiq_low": "not recognisable"}),),
    frontal=True,
    weight=0.5,
    order=10,
)
