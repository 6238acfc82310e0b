"""SER-FIQ: is it a robust, recognisable face? (Terhorst et al., CVPR 2020; docs/design.md 4.1)

Stochastic embeddings under dropout before the last affine layer are close together for a good face. d is
their mean pairwise distance after L2 normalisation. This module has both the sampled form and its closed-form estimate.
The recognizer's graph computes the closed form itself; `closed_form_spread` is the reference implementation.
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
    """The measure's raw value, 2 / (1 + exp(d)): 1 for d = 0, falling towards 0; NaN stays NaN."""
    return 2.0 / (1.0 + math.exp(d))


def official(raw: float, alpha: float = 130.0, r: float = 0.88) -> float:
    """The authors' quality in 0..1: 1 / (1 + exp(-alpha (raw - r))); defaults are for ArcFace-R100."""
    return _sigmoid(alpha * (raw - r))


def closed_form_spread(weight: Array, features: Array, bias: Array, drop_rate: float) -> float:
    """d without sampling, for the last layer `weight` (D, K) x + `bias` (D,) and x = `features` (K,).

    Dropping unit k adds variance x_k^2 p/(1-p) along the k-th column; its part along the embedding itself
    vanishes under normalisation. Not defined (NaN) when the embedding is zero.
    """
    weight, features = np.asarray(weight, np.float64), np.asarray(features, np.float64)
    embedding = weight @ features + np.asarray(bias, np.float64)
    power = float(embedding @ embedding)
    if power == 0.0:
        return math.nan
    across = (weight * weight).sum(axis=0) - (weight.T @ embedding) ** 2 / power
    trace = drop_rate / (1.0 - drop_rate) * float(np.sum(features**2 * across))
    # Rounding can push a trace that is zero in exact arithmetic just below zero.
    trace = max(trace, 0.0)
    return math.sqrt(2.0 * trace / (power + trace))


def sampled_spread(embeddings: Array) -> float:
    """d of stochastic embeddings (T, D), T >= 2: the mean over the T(T-1)/2 pairs of different rows.

    Computed in float64: distances of near neighbours are lost in float32 products. NaN when a row is zero.

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
    # Only pairs above the diagonal, a block of rows at a time: T = 2000 needs no T x T array.
    for start in range(0, count, _BLOCK):
        halves = unit[start : start + _BLOCK] @ columns[:, start:]
        # Half the squared distance, minus the rounding error that would keep equal rows apart.
        np.subtract(1.0 - _NOISE, halves, out=halves)
        np.maximum(halves, 0.0, out=halves)
        halves[np.tril_indices(len(halves))] = 0.0
        total += float(np.sqrt(halves, out=halves).sum())
    return math.sqrt(2.0) * total / (count * (count - 1) / 2)


def sample_embeddings(
    weight: Array, features: Array, bias: Array, drop_rate: float, count: int = 100, seed: int = 0
) -> Array:
    """`count` stochastic embeddings (count, D), float32, by inverted dropout on `features` (K,).

    Each unit is dropped in `drop_rate` of the passes, as closely as `count` allows, and the passes are drawn
    independently for each unit (Latin hypercube sampling). Most of the noise of plain dropout comes from how often a
    unit happens to be dropped; with 100 passes, two seeds differ only a quarter as much as with plain dropout. Masks
    depend on `seed` and on the features themselves, so no two faces share them, and a face's value depends neither on
    its batch nor on what was scored before it.

    Passes with evenly distributed drops differ a little more from each other than independent ones; a shrink factor
    corrects this, so that their mean squared distance equals the expectation of plain dropout.
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
    """0..1; 1 for a face whose embedding does not move under dropout."""
    spread = evidence.values.get("spread")
    return None if spread is None else raw_from_spread(spread)


MEASURE = MeasureSpec(
    name="serfiq",
    label="SER-FIQ",
    hint="how surely a recognizer knows this face",
    purpose="Is it a robust, recognisable face? How little dropout moves the recognizer's embedding.",
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
