"""Veils: they keep a picture's shape, repeat exactly, and are the same over a whole series."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.common.veils import VEILS, Veil, apply_veils, bayer_matrix, draw_veils, mild_grain


def detail(picture: np.ndarray) -> float:
    return float(cv2.Laplacian(picture.mean(axis=2).astype(np.float32), cv2.CV_32F).std())


@pytest.mark.parametrize("kind", sorted(VEILS))
@pytest.mark.parametrize("shape", [0.1, 0.45, 0.9])
def test_a_veil_changes_a_picture_more_the_stronger_it_is(kind: str, shape: float, face: np.ndarray) -> None:
    weak, strong = (Veil(kind, t, shape, 77).apply(face) for t in (0.1, 0.95))
    assert weak.shape == strong.shape == face.shape and weak.dtype == strong.dtype == np.uint8
    distances = [np.abs(p.astype(float) - face).mean() for p in (weak, strong)]
    assert 0 < distances[0] < distances[1]


@pytest.mark.parametrize("kind", ["grain", "coded grain", "ordered dither", "error diffusion", "sharpening"])
def test_a_veil_makes_a_blurred_face_look_detailed(kind: str, face: np.ndarray) -> None:
    blurred = cv2.GaussianBlur(face, (0, 0), 4)
    assert detail(Veil(kind, 0.7, 0.55, 3).apply(blurred)) > 1.2 * detail(blurred)


def test_drawn_veils_repeat_exactly(face: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    for _ in range(6):
        veils = draw_veils(rng)
        assert np.array_equal(apply_veils(veils, face), apply_veils(veils, face))


def test_favoured_veils_are_drawn_more_often_than_others() -> None:
    rng = np.random.default_rng(1)
    drawn = [[v.kind for v in draw_veils(rng, ("vignette",))] for _ in range(200)]
    assert 90 < sum(kinds == ["vignette"] for kinds in drawn) < 130


def test_a_mild_grain_is_mild() -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    deviations = [mild_grain(grey, rng).std() for _ in range(20)]
    assert min(deviations) > 1.2 and max(deviations) < 3.9


def test_a_bayer_matrix_holds_every_threshold_once() -> None:
    assert np.array_equal(np.sort(bayer_matrix(4).ravel()), (np.arange(16) + 0.5) / 16)
