"""Faces that look the same."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.config_sections import KeepConfig
from streamgate.scoring.fingerprint import HASH_SIDE, hash_matrix, perceptual_hash
from streamgate.selection.duplicates import Appearance, are_duplicates
from support.media import astronaut

LANDMARKS = np.array([[212, 105], [244, 105], [228, 125], [214, 142], [242, 142]], np.float32)


def hash_of(picture: np.ndarray, landmarks: np.ndarray = LANDMARKS) -> int:
    matrix = hash_matrix(landmarks)
    return perceptual_hash(cv2.warpAffine(picture, matrix, (HASH_SIDE, HASH_SIDE), flags=cv2.INTER_AREA))


def bits(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def test_the_hash_survives_what_does_not_change_the_look() -> None:
    picture = astronaut()
    plain = hash_of(picture)
    assert 20 <= plain.bit_count() <= 43 and plain < 1 << 63
    brighter = np.clip(picture.astype(float) * 1.2 + 10, 0, 255).astype(np.uint8)
    assert bits(plain, hash_of(brighter)) <= 4
    _, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert bits(plain, hash_of(cv2.imdecode(coded, cv2.IMREAD_COLOR))) <= 4
    # The background is none of the look.
    elsewhere = picture.copy()
    elsewhere[:, :150] = 0
    elsewhere[:, 320:] = 255
    assert hash_of(elsewhere) == plain
    assert bits(plain, hash_of(np.ascontiguousarray(picture[:, ::-1]))) > 12


def test_the_hash_looks_at_brows_to_chin() -> None:
    corners = np.array([[-0.5, -0.5], [HASH_SIDE - 0.5, HASH_SIDE - 0.5]])
    matrix = np.vstack([hash_matrix(LANDMARKS), [0, 0, 1]])
    (left, top), (right, bottom) = ((np.linalg.inv(matrix) @ [*corner, 1])[:2] for corner in corners)
    assert left < 212 and right > 244 and top < 105 and bottom > 142
    assert right - left < 2.6 * 32


def keep(bits: int, cosine: float) -> KeepConfig:
    return load_config("studio", [f"keep.duplicate_bits={bits}", f"keep.duplicate_cosine={cosine}"]).keep


def test_both_have_to_be_close_and_half_the_bits_decide_alone() -> None:
    rule = keep(bits=8, cosine=0.9)
    here, near, far = np.array([1.0, 0]), np.array([5.0, 1]), np.array([0.5, 1])
    assert are_duplicates(Appearance(0, here), Appearance(0xFF, near), rule)
    assert not are_duplicates(Appearance(0, here), Appearance(0x1FF, near), rule)
    assert not are_duplicates(Appearance(0, here), Appearance(0, far), rule)
    assert are_duplicates(Appearance(0, None), Appearance(0xF, near), rule) and not are_duplicates(
        Appearance(0, here), Appearance(0x1F, None), rule
    )
    assert not are_duplicates(Appearance(None, here), Appearance(0, here), rule)
    assert are_duplicates(Appearance(0, here), Appearance(0x1FF, near), keep(bits=8, cosine=0.8))
    # Noise makes small faces differ more.
    assert are_duplicates(Appearance(0, here, 25), Appearance(0x3FF, np.array([0.82, 0.57]), 80), rule)
    assert not are_duplicates(Appearance(0, here, 25), Appearance(0x7FF, np.array([0.82, 0.57])), rule)
    assert not are_duplicates(Appearance(0, here, 25), Appearance(0, far, 25), rule)
    assert not are_duplicates(Appearance(0, here), Appearance(0, here), keep(bits=63, cosine=2.0))


def test_landmarks_in_one_point_define_no_square() -> None:
    with pytest.raises(ValueError, match="coincide"):
        hash_matrix(np.zeros((5, 2), np.float32))
