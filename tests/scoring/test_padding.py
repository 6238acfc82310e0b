"""Kept pictures that reach past the frame."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.scoring.padding import warp_padded
from streamgate.sources import picture_of_rgb

SIDE = 64


def ramp() -> np.ndarray:
    """A picture that gets brighter to the right: (100, 100, 3)."""
    return np.repeat(np.tile(np.arange(100, dtype=np.uint8)[None, :, None] * 2, (100, 1, 1)), 3, axis=2)


def shifted(left: float) -> np.ndarray:
    """Shows SIDE x SIDE pixels from column `left` on."""
    return np.array([[1.0, 0.0, -left], [0.0, 1.0, -10.0]])


def test_a_picture_inside_the_frame_is_what_warp_gives() -> None:
    picture = picture_of_rgb(ramp())
    expected = picture.warp(shifted(20.0), SIDE, fine=True)
    for pad in ("black", "reflect", "blur"):
        assert np.array_equal(warp_padded(picture, shifted(20.0), SIDE, pad), expected)  # type: ignore[arg-type]


def test_outside_is_black_or_mirrored_and_inside_untouched() -> None:
    picture = picture_of_rgb(ramp())
    plain = picture.warp(shifted(-16.0), SIDE, fine=True)
    black = warp_padded(picture, shifted(-16.0), SIDE, "black")
    mirrored = warp_padded(picture, shifted(-16.0), SIDE, "reflect")
    assert not black[:, :16].any()
    assert np.array_equal(black[:, 16:], plain[:, 16:]) and np.array_equal(mirrored[:, 16:], plain[:, 16:])
    # Column -x shows what column x shows.
    assert mirrored[:, :16].astype(int) == pytest.approx(mirrored[:, 32:16:-1].astype(int), abs=2)


def test_blur_grows_with_the_distance_from_the_border() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    padded = warp_padded(picture_of_rgb(noise), shifted(-32.0), SIDE, "blur")
    spread = [padded[:, start : start + 8].std() for start in (0, 24, 40)]
    assert spread[0] < spread[1] < spread[2]


@pytest.mark.parametrize("pad", ["black", "reflect", "blur"])
def test_a_picture_wholly_outside_fails_nowhere(pad: str) -> None:
    padded = warp_padded(picture_of_rgb(ramp()), shifted(500.0), SIDE, pad)  # type: ignore[arg-type]
    assert padded.shape == (SIDE, SIDE, 3) and padded.dtype == np.uint8
