"""Where crops lie (docs/design.md 5)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamgate.networks.alignment import (
    ARCFACE_TEMPLATE,
    EXPRESSION_EYE_DISTANCE,
    EXPRESSION_EYE_ROW,
    arcface_matrix,
    box_matrix,
    expression_matrix,
    ffhq_corners,
    ffhq_matrix,
    ffhq_side,
    umeyama,
)


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def test_a_similarity_is_found_again_from_its_own_points():
    angle, scale, shift = 0.4, 2.5, np.array([7.0, -3.0])
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = umeyama(ARCFACE_TEMPLATE, ARCFACE_TEMPLATE @ linear.T + shift)
    assert np.allclose(matrix, np.column_stack([linear, shift]))


def test_a_mirrored_face_is_not_mirrored_back():
    mirrored = ARCFACE_TEMPLATE * [-1, 1]
    assert np.linalg.det(umeyama(mirrored, ARCFACE_TEMPLATE)[:, :2]) > 0


def test_it_agrees_with_an_independent_least_squares_fit():
    source = ARCFACE_TEMPLATE + np.random.default_rng(0).normal(0, 4, (5, 2))
    ones, zeros = np.ones(5), np.zeros(5)
    x, y = source.T
    rows = np.concatenate([np.column_stack([x, -y, ones, zeros]), np.column_stack([y, x, zeros, ones])])
    (a, b, right, down), *_ = np.linalg.lstsq(rows, ARCFACE_TEMPLATE.T.ravel(), rcond=None)
    assert np.allclose(umeyama(source, ARCFACE_TEMPLATE), [[a, -b, right], [b, a, down]])


def test_coinciding_landmarks_are_refused():
    for build in (arcface_matrix, lambda points: ffhq_matrix(points, 256), ffhq_side):
        with pytest.raises(ValueError, match="coincide"):
            build(np.full((5, 2), 3.0))


def test_an_eye_line_needs_two_eyes():
    with pytest.raises(ValueError, match="eyes coincide"):
        expression_matrix(np.ones((5, 2)))


def test_template_landmarks_need_no_alignment():
    assert np.allclose(arcface_matrix(ARCFACE_TEMPLATE), [[1, 0, 0], [0, 1, 0]])


def test_another_size_keeps_the_outer_edges_of_the_picture():
    matrix = arcface_matrix(ARCFACE_TEMPLATE, 224)
    assert np.allclose(apply(matrix, np.array([[-0.5, -0.5], [111.5, 111.5]])), [[-0.5, -0.5], [223.5, 223.5]])


def test_ffhq_square_of_the_arcface_template():
    corners = ffhq_corners(ARCFACE_TEMPLATE)
    assert corners[0] == pytest.approx([-17.7, -17.2], abs=0.1)
    assert corners[2] == pytest.approx([129.6, 128.5], abs=0.1)


def test_ffhq_matrix_takes_the_corners_to_the_corners():
    landmarks = ARCFACE_TEMPLATE @ np.array([[0.9, 0.3], [-0.3, 0.9]]) * 3 + [40, 90]
    corners = apply(ffhq_matrix(landmarks, 256), ffhq_corners(landmarks))
    assert np.allclose(corners, [[-0.5, -0.5], [255.5, -0.5], [255.5, 255.5], [-0.5, 255.5]])
    sides = np.linalg.norm(np.diff(ffhq_corners(landmarks), axis=0), axis=1)
    assert np.allclose(sides, ffhq_side(landmarks))


def test_the_expression_picture_is_aligned_by_the_eye_line_alone():
    landmarks = np.array([[200.0, 150.0], [260.0, 162.0], [229.0, 195.0], [205.0, 220.0], [245.0, 228.0]])
    matrix = expression_matrix(landmarks)
    eyes = apply(matrix, landmarks[:2])
    assert eyes.mean(axis=0) == pytest.approx([63.5, EXPRESSION_EYE_ROW])
    assert eyes[0, 1] == pytest.approx(eyes[1, 1])
    assert eyes[1, 0] - eyes[0, 0] == pytest.approx(EXPRESSION_EYE_DISTANCE, rel=0.02)
    opened = landmarks + np.array([[0, 0], [0, 0], [0, 0], [0, 40], [0, 40]])
    assert np.array_equal(expression_matrix(opened), matrix)


def test_a_turned_head_keeps_its_size_in_the_expression_picture():
    """At 60 degrees the eyes are half as far apart and the nose has moved along their line."""
    frontal = np.array([[200.0, 150.0], [260.0, 150.0], [230.0, 180.0], [205.0, 210.0], [255.0, 210.0]])
    turned = frontal.copy()
    turned[0, 0], turned[1, 0], turned[2, 0] = 215.0, 245.0, 230.0 + 60.0 * 0.866 / 1.7
    scales = [float(np.hypot(*expression_matrix(points)[0, :2])) for points in (frontal, turned)]
    assert scales[1] == pytest.approx(scales[0], rel=0.01)


def test_box_matrix_stretches_the_box():
    matrix = box_matrix(np.array([10, 20, 30, 60]), 64)
    assert np.allclose(apply(matrix, np.array([[10, 20], [30, 60.0]])), [[-0.5, -0.5], [63.5, 63.5]])
    with pytest.raises(ValueError, match="empty"):
        box_matrix(np.array([10, 20, 10, 60]), 64)


def test_aligning_an_ffhq_face_gives_the_picture_back(networks, hq_faces):
    wanted = np.array([[-0.5, -0.5], [255.5, -0.5], [255.5, 255.5], [-0.5, 255.5]])
    errors = []
    for picture in hq_faces:
        face = networks.detector.detect([picture])[0][0]
        errors.append(np.linalg.norm(ffhq_corners(face.landmarks) - wanted, axis=1).mean() / 256)
    assert np.median(errors) <= 0.04
    matrix = ffhq_matrix(networks.detector.detect([hq_faces[0]])[0][0].landmarks, 256)
    again = cv2.warpAffine(hq_faces[0], matrix, (256, 256))
    assert np.abs(again.astype(int) - hq_faces[0]).mean() < 25
