"""Detection with the standard weights on real faces."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from support.real_weights import lfw_pairs, overlap, read_rgb, shared_part


def centred(face_picture, box, share, height, width):
    """The face scaled to `share` of a picture's height and put into its middle; the picture and the box."""
    scale = share * height / (box[3] - box[1])
    middle = (box[:2] + box[2:]) / 2 * scale
    matrix = np.array([[scale, 0, width / 2 - middle[0]], [0, scale, height / 2 - middle[1]]])
    picture = cv2.warpAffine(face_picture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderValue=(90, 90, 90))
    half = (box[2:] - box[:2]) / 2 * scale
    centre = np.array([width / 2, height / 2])
    return picture, np.concatenate([centre - half, centre + half])


def test_photographs_with_many_faces(networks):
    """AFW, long side 640, threshold 0.5, IoU 0.35 (SOURCES: 98-100 %)."""
    folder = shared_part("faces/afw")
    found = total = 0
    for photo in json.loads((folder / "annotations.json").read_text()):
        picture = read_rgb(folder / photo["file"])
        scale = 640 / max(picture.shape[:2])
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        faces = networks.detector.detect([small], 0.5)[0]
        for truth in photo["faces"]:
            total += 1
            found += any(overlap(np.array(truth["box"]) * scale, face.box) >= 0.35 for face in faces)
    assert total == 237
    assert found / total >= 0.95


@pytest.mark.parametrize(("height", "width"), [(360, 640), (720, 1280)])
def test_a_face_that_fills_most_of_the_picture(networks, hq_faces, height, width):
    for picture in hq_faces[:12]:
        box = networks.detector.detect([picture])[0][0].box
        large, wanted = centred(picture, box, 0.8, height, width)
        faces = networks.detector.detect([large])[0]
        assert faces and overlap(faces[0].box, wanted) > 0.5


def test_a_face_of_sixteen_pixels(networks, lfw):
    """At the threshold for tracked faces; 20 px are needed for the same recall at 0.5."""
    found = []
    for name, _, _ in lfw_pairs(1, 20):
        picture = lfw(name)
        middle = np.array([125, 125])
        faces = networks.detector.detect([picture])[0]
        box = min(faces, key=lambda face: np.linalg.norm(face.landmarks.mean(axis=0) - middle)).box
        scale = 16 / min(box[2] - box[0], box[3] - box[1])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        canvas = np.full((360, 640, 3), 110, np.uint8)
        canvas[100 : 100 + len(small), 200 : 200 + small.shape[1]] = small
        wanted = box * scale + np.array([200, 100, 200, 100])
        found.append(any(overlap(face.box, wanted) > 0.35 for face in networks.detector.detect([canvas], 0.3)[0]))
    assert np.mean(found) >= 0.85


def test_a_known_face_with_its_landmarks_in_order(networks):
    data = pytest.importorskip("skimage.data")
    (face,) = networks.detector.detect([data.astronaut()])[0]
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert face.score > 0.99
    assert face.box == pytest.approx([177, 56, 270, 176], abs=4)
    assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]


def test_noise_and_flat_pictures_hold_no_face(networks):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    assert networks.detector.detect([noise, np.zeros((64, 64, 3), np.uint8)]) == [[], []]


def test_company_does_not_change_a_result(networks, hq_faces):
    """Bit for bit, whatever sizes share the batch."""
    wide = cv2.resize(hq_faces[1], (300, 170))
    alone = networks.detector.detect([hq_faces[0]], 0.3)[0]
    for company in ([], [hq_faces[1]], hq_faces[1:4], [wide], [wide, *hq_faces[2:8]]):
        together = networks.detector.detect([*company, hq_faces[0]], 0.3)[-1]
        assert len(together) == len(alone)
        for one, other in zip(together, alone, strict=True):
            assert np.array_equal(one.box, other.box) and one.score == other.score
            assert np.array_equal(one.landmarks, other.landmarks)


@pytest.mark.parametrize("shape", [(1, 1, 3), (33, 1, 3), (7, 500, 3)])
def test_odd_sizes_pass(networks, shape):
    assert len(networks.detector.detect([np.full(shape, 128, np.uint8)])) == 1


def test_other_pictures_are_refused(networks):
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="RGB uint8"):
            networks.detector.detect([wrong])
    assert networks.detector.detect([]) == []
