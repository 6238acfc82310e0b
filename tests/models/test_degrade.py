"""Degradations grow with severity, keep the picture's shape, and repeat exactly."""

from __future__ import annotations

import numpy as np
import pytest

from models.common.degrade import KINDS, Degradation, Step, draw_mixture, tone
from models.common.regions import REGIONS, blend, draw_swap, region_mask

SEVERITIES = (0.1, 0.4, 0.7, 1.0)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float64) - b).mean())


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("shape", [0.2, 0.55, 0.7, 0.9])
def test_more_severe_is_farther_from_the_original(kind: str, shape: float, face: np.ndarray) -> None:
    if kind == "footage":
        pytest.importorskip("av")
    degradation = Degradation(kind, (Step(kind, shape, 1234),))
    pictures = [degradation.apply(face, t) for t in SEVERITIES]
    distances = [distance(p, face) for p in pictures]
    assert all(p.shape == face.shape and p.dtype == np.uint8 for p in pictures)
    assert distances == sorted(distances)
    assert distances[-1] > 1.5 * distances[0]


def test_a_drawn_chain_repeats_exactly(face: np.ndarray) -> None:
    chain = draw_mixture(np.random.default_rng(3), 0.5, minimum=2)
    assert np.array_equal(chain.apply(face, 0.5), chain.apply(face, 0.5))


def test_a_mixture_holds_at_least_what_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    assert all(len(draw_mixture(rng, 0.1, minimum=2).steps) >= 2 for _ in range(50))


def test_jpeg_grid_offset_does_not_move_the_picture(face: np.ndarray) -> None:
    moved = Degradation("jpeg", (Step("jpeg", 0.1, 8 * 5 + 3),)).apply(face, 0.0)
    assert moved.shape == face.shape
    assert distance(moved, face) < 4


def test_tone_keeps_detail(face: np.ndarray) -> None:
    toned = tone(face, np.random.default_rng(1))
    edges = [np.abs(np.diff(p.mean(axis=2), axis=1)).ravel() for p in (face, toned)]
    assert np.corrcoef(edges[0], edges[1])[0, 1] > 0.9


def test_a_region_swap_changes_only_the_region(face: np.ndarray) -> None:
    for name in REGIONS:
        mask = region_mask(name, 256)
        swapped = blend(face, np.zeros_like(face), mask)
        assert np.array_equal(swapped[mask == 0], face[mask == 0])
        assert not swapped[mask == 1].any()


def test_drawn_swaps_cover_a_part_of_the_face_only() -> None:
    rng = np.random.default_rng(2)
    areas = [draw_swap(rng, 256).mean() for _ in range(40)]
    assert min(areas) > 0.002 and max(areas) < 0.4


@pytest.mark.parametrize("shape", [0.2, 0.55, 0.7, 0.9])
def test_noise_has_its_strength_in_every_channel(shape: float) -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    noisy = Degradation("noise", (Step("noise", shape, 5),)).apply(grey, 0.5)
    # Geometric between 2 and 60 levels; the signal-dependent variant is as strong at middle grey.
    assert noisy.std(axis=(0, 1)) == pytest.approx([120**0.5] * 3, rel=0.12)
