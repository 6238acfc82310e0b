"""SER-FIQ: the vectors of DESIGN 4.1, and both forms against each other on real faces."""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from real_weights import aligned, hq_faces, networks  # noqa: F401
from streamgate.frames import Evidence
from streamgate.measures import Sigmoid
from streamgate.measures.serfiq import (
    MEASURE,
    closed_form_spread,
    official,
    raw_from_spread,
    sample_embeddings,
    sampled_spread,
)

WEIGHT = np.array([[1, 0, 2, 0], [0, 1, 0, -1], [1, 1, 0, 0]], float)
FEATURES = np.array([1, 2, 0.5, 1])
BIAS = np.array([0.5, -0.5, 1])


def test_identical_rows():
    raw = raw_from_spread(sampled_spread(np.tile([3.0, -1.0, 0.2], (7, 1))))
    assert raw == 1.0
    assert official(raw) == pytest.approx(0.99999983, abs=1e-8)


def test_two_orthogonal_and_two_opposite_rows():
    assert raw_from_spread(sampled_spread(np.eye(2))) == pytest.approx(0.3911406350, abs=1e-10)
    v = np.array([1.0, 2.0, -3.0])
    assert raw_from_spread(sampled_spread(np.stack([v, -v]))) == pytest.approx(0.2384058440, abs=1e-10)


def test_the_counting_matrix():
    d = sampled_spread(np.arange(12).reshape(3, 4) + 1)
    assert d == pytest.approx(0.2089840415, abs=1e-10)
    assert raw_from_spread(d) == pytest.approx(0.8958866272, abs=1e-10)
    assert official(raw_from_spread(d)) == pytest.approx(0.8874806521, abs=1e-10)


def test_closed_form():
    d = closed_form_spread(WEIGHT, FEATURES, BIAS, 0.5)
    assert d == pytest.approx(0.6586916653, abs=1e-10)
    assert raw_from_spread(d) == pytest.approx(0.6820671440, abs=1e-10)
    assert raw_from_spread(closed_form_spread(WEIGHT, FEATURES, BIAS, 0.0)) == 1.0


def test_many_rows_are_summed_over_every_pair_once():
    distance = pytest.importorskip("scipy.spatial.distance")
    rows = np.random.default_rng(0).normal(size=(600, 9))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert sampled_spread(rows) == pytest.approx(distance.pdist(unit).mean(), rel=1e-12)


def test_near_neighbours_keep_their_distance():
    """A float32 product loses distances below about 3e-4."""
    rows = np.array([[1.0, 0.0], [1.0, 1e-5]])
    assert sampled_spread(rows) == pytest.approx(1e-5, rel=1e-3)


def test_what_is_not_defined_is_nan():
    assert math.isnan(closed_form_spread(WEIGHT, np.zeros(4), np.zeros(3), 0.5))
    assert math.isnan(sampled_spread(np.array([[0.0, 0.0], [1.0, 0.0]])))
    with pytest.raises(ValueError, match="two"):
        sampled_spread(np.ones((1, 3)))


def test_the_scalar_is_the_official_quality_in_percent():
    d = sampled_spread(np.arange(12).reshape(3, 4) + 1)
    raw = MEASURE.raw_of(Evidence({"spread": d}))
    assert Sigmoid(0.88, 1 / 130).scalar(raw) == pytest.approx(88.74806521, abs=1e-6)


def test_far_out_values_do_not_overflow():
    assert official(-1e9) == 0.0 and official(1e9) == 1.0


def test_sampling_depends_on_its_seed_alone():
    first = sample_embeddings(WEIGHT, FEATURES, BIAS, 0.5, count=50, seed=3)
    np.random.default_rng().random(10)
    assert np.array_equal(first, sample_embeddings(WEIGHT, FEATURES, BIAS, 0.5, count=50, seed=3))
    assert not np.array_equal(first, sample_embeddings(WEIGHT, FEATURES, BIAS, 0.5, count=50, seed=4))
    assert np.allclose(sample_embeddings(WEIGHT, FEATURES, BIAS, 0.0, 2), WEIGHT @ FEATURES + BIAS)


def sampled_runs(weight, bias, drop_rate, features, index):
    """The raw value of one face in five independent runs of T = 2000."""
    runs = (sample_embeddings(weight, features, bias, drop_rate, 2000, seed=run * 1000 + index) for run in range(5))
    return [raw_from_spread(sampled_spread(embeddings)) for embeddings in runs]


def test_both_forms_agree_on_real_faces(networks, hq_faces, monkeypatch):  # noqa: F811
    """240 crops (40 clean, each with five degradations) against the mean of five runs of T = 2000."""
    stats = pytest.importorskip("scipy.stats")
    from streamgate.convert.calibrate import DEGRADATIONS

    clean = [aligned(networks, face) for face in hq_faces[:40]]
    crops = clean + [degrade(crop) for degrade in DEGRADATIONS.values() for crop in clean]
    assert len(crops) == 240
    output = networks.recognizer.run(np.stack(crops))
    layer = networks.recognizer.last_affine()
    drop_rate = networks.calibration("recognizer").drop_rate
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    # Fresh processes with one BLAS thread each: threads in these small products cost more than they bring.
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        run = functools.partial(sampled_runs, layer.weight, layer.bias, drop_rate)
        sampled = np.array(list(pool.map(run, output.features, range(len(crops)), chunksize=10))).T
    closed = np.array([raw_from_spread(float(d)) for d in output.spread])
    mean = sampled.mean(axis=0)
    rmse = float(np.sqrt(np.mean((closed - mean) ** 2)))
    between = max(stats.spearmanr(sampled[a], sampled[b]).statistic for a in range(5) for b in range(a + 1, 5))
    rank = stats.spearmanr(closed, mean).statistic
    print(f"RMSE {rmse:.5f}, rank {rank:.5f}, between single runs at most {between:.5f}")
    assert rmse <= 0.004
    assert rank >= between
