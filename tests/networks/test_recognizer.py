"""Embeddings and spread of the standard recognizer."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.measures.serfiq import closed_form_spread
from support.real_weights import aligned, lfw_pairs

THRESHOLD = 0.33
"""Cosine above which two faces are one person; chosen on fold 2."""


def test_same_and_different_people_of_lfw(networks, lfw):
    pairs = lfw_pairs(1, 150)
    names = sorted({name for a, b, _ in pairs for name in (a, b)})
    embeddings = networks.recognizer.run(np.stack([aligned(networks, lfw(name)) for name in names])).embedding
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    by_name = dict(zip(names, unit, strict=True))
    right = [(by_name[a] @ by_name[b] > THRESHOLD) == same for a, b, same in pairs]
    assert np.mean(right) > 0.98


def test_the_graph_computes_the_closed_form(networks, hq_faces):
    output = networks.recognizer.run(np.stack([aligned(networks, face) for face in hq_faces[:8]]))
    weight, bias = networks.recognizer.last_affine()
    drop_rate = networks.calibration("recognizer").drop_rate
    for features, embedding, spread in zip(output.features, output.embedding, output.spread, strict=True):
        assert np.allclose(weight @ features + bias, embedding, atol=1e-3)
        assert spread == pytest.approx(closed_form_spread(weight, features, bias, drop_rate), abs=1e-5)


@pytest.mark.parametrize("count", [2, 3, 4, 8, 17])
def test_company_does_not_change_a_face(networks, hq_faces, count):
    crops = np.stack([aligned(networks, face) for face in hq_faces[:count]])
    together = networks.recognizer.run(crops)
    for index in range(count):
        alone = networks.recognizer.run(crops[index : index + 1])
        assert np.array_equal(alone.embedding[0], together.embedding[index])
        assert alone.spread[0] == together.spread[index]
        assert np.array_equal(alone.features[0], together.features[index])


def test_threads_inside_a_run_do_not_change_a_face(networks, hq_faces):
    from streamgate.networks import Networks
    from support.real_weights import standard_models

    crops = np.stack([aligned(networks, face) for face in hq_faces[:3]])
    with Networks.open(str(standard_models()), "cpu", threads=2) as two:
        assert np.array_equal(two.recognizer.run(crops).embedding, networks.recognizer.run(crops).embedding)


def test_a_clean_face_spreads_less_than_a_spoilt_one(networks, hq_faces):
    from streamgate.convert.calibrate import low_resolution

    crops = [aligned(networks, face) for face in hq_faces[:20]]
    clean = networks.recognizer.run(np.stack(crops)).spread
    spoilt = networks.recognizer.run(np.stack([low_resolution(crop) for crop in crops])).spread
    assert np.median(clean) < np.median(spoilt)


def test_other_shapes_are_refused(networks):
    with pytest.raises(ValueError, match=r"\(N, 112, 112, 3\)"):
        networks.recognizer.run(np.zeros((1, 100, 100, 3), np.uint8))
