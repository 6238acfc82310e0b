"""Fitting a measure's mapping."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from streamgate.convert.calibrate import DEGRADATIONS, aligned_faces, calibrate_serfiq, fit
from streamgate.errors import WeightsError
from support.real_weights import lfw_pairs


def scalar(raw, found):
    return 100 / (1 + math.exp(-(raw - found.x0) / found.w))


def test_the_medians_map_to_ninety_and_ten():
    rng = np.random.default_rng(0)
    clean = rng.normal(0.8, 0.02, 301)
    found = fit(clean, {"mild": clean - 0.05, "bad": clean - 0.2})
    assert found.worst == "bad"
    assert scalar(np.median(clean), found) == pytest.approx(90)
    assert scalar(np.median(clean) - 0.2, found) == pytest.approx(10)


def test_weights_that_do_not_tell_are_refused():
    with pytest.raises(WeightsError, match="do not measure quality"):
        fit([0.5] * 200, {"blur": [0.6] * 200})
    with pytest.raises(WeightsError, match="at least 100"):
        fit([0.5] * 99, {"blur": [0.4] * 99})


def test_degradations_keep_shape_and_are_repeatable():
    face = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    for degrade in DEGRADATIONS.values():
        first = degrade(face)
        assert first.shape == face.shape and first.dtype == np.uint8
        assert np.array_equal(first, degrade(face)) and not np.array_equal(first, face)


def test_a_folder_of_faces_calibrates_a_recognizer(networks, lfw, tmp_path):
    names = list(dict.fromkeys(name for pair in lfw_pairs(2, 80) for name in pair[:2]))[:110]
    for name in names:
        cv2.imwrite(str(tmp_path / name), lfw(name)[..., ::-1])
    (tmp_path / "notes.jpg").write_text("not a picture")
    faces = list(aligned_faces(tmp_path, networks.detector, limit=105))
    assert len(faces) == 105 and all(face.shape == (112, 112, 3) for face in faces)
    calibration, found = calibrate_serfiq(networks.recognizer, faces, 0.5, "test/1")
    shipped = networks.calibration("recognizer")
    assert calibration.calibration_id == "test/1"
    assert calibration.r == pytest.approx(shipped.r, abs=0.01)
    assert calibration.alpha == pytest.approx(shipped.alpha, rel=0.4)
    assert found.worst in DEGRADATIONS
