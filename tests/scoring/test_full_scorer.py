"""What is kept of a frame around a face holds every crop that a measure will ask for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamgate.frames import Face
from streamgate.measures import CropCard, known_measures
from streamgate.scoring.full_scorer import crop_matrix, face_region
from streamgate.sources.picture import picture_of_rgb

(LIVE,) = (spec.card for spec in known_measures() if spec.name == "live")


@pytest.mark.parametrize("card", [LIVE, CropCard("onnx", crop="loose", margin=1.0, size=64)])
def test_a_crop_of_what_was_kept_is_the_crop_of_the_frame(card: CropCard) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.float32)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)
    picture = picture_of_rgb(smooth.astype(np.uint8))
    for box in ([140, 90, 180, 150], [2, 5, 60, 80], [250, 180, 330, 250], [10, 20, 300, 230]):
        expected = np.array(box, float)
        kept = picture.region(face_region(expected, 0.5, [card], picture))
        # Found again a little beside where it was expected, and larger.
        face = Face(expected + 0.05 * (expected[2] - expected[0]) * np.array([-1, -1, 0.5, 1]), np.zeros((5, 2)), 1.0)
        matrix = crop_matrix(card, face, kept)
        # Sampling falls on other steps of the kept pixels; an edge repeated where pixels are missing differs by 100.
        assert np.abs(kept.warp(matrix, card.size).astype(int) - picture.warp(matrix, card.size)).max() < 10


def test_the_published_crop_of_live_stays_in_the_picture() -> None:
    picture = picture_of_rgb(np.zeros((240, 320, 3), np.uint8))
    for box, corners in (
        # 2.7 times the box about its middle; moved in; limited by the picture's height.
        ([140, 100, 180, 150], [106, 57.5, 214, 192.5]),
        ([0, 0, 40, 50], [0, 0, 108, 135]),
        ([100, 20, 200, 220], [100 + 50 - 60, 0, 100 + 50 + 60, 240]),
    ):
        matrix = crop_matrix(LIVE, Face(np.array(box, float), np.zeros((5, 2)), 1.0), picture)
        ends = (np.array([[-0.5, -0.5], [79.5, 79.5]]) - matrix[:, 2]) / np.diag(matrix)
        assert np.allclose(ends.ravel(), np.array(corners), atol=1e-6)
