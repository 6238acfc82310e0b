"""Head pose with the standard weights, in the signs of docs/design.md 5."""

from __future__ import annotations

import json

import cv2
import numpy as np

from streamgate.networks.alignment import box_matrix
from streamgate.networks.pose import crop_box, head_poses
from support.real_weights import overlap, read_rgb, shared_part


def cut(picture, box):
    return cv2.warpAffine(picture, box_matrix(crop_box(box), 64), (64, 64), flags=cv2.INTER_AREA)


def test_mirroring_negates_yaw_and_roll(networks, hq_faces):
    crops = np.stack([cut(face, networks.detector.detect([face])[0][0].box) for face in hq_faces])
    plain = head_poses(networks.pose, crops)
    mirrored = head_poses(networks.pose, np.ascontiguousarray(crops[:, :, ::-1]))
    for axis, sign in ((0, -1), (1, 1), (2, -1)):
        assert np.median(np.abs(plain[:, axis] - sign * mirrored[:, axis])) < 3
    assert np.corrcoef(plain[:, 0], mirrored[:, 0])[0, 1] < -0.8


def test_yaw_and_roll_signs_follow_the_landmarks(networks, hq_faces):
    """Yaw > 0 moves the nose to larger x; roll > 0 turns the eyes' line clockwise on the screen."""
    yaw, nose, roll, eyes = [], [], [], []
    for index, picture in enumerate(hq_faces):
        angle = (-20, 0, 20)[index % 3]
        turned = cv2.warpAffine(picture, cv2.getRotationMatrix2D((128, 128), -angle, 0.8), (256, 256))
        faces = networks.detector.detect([turned])[0]
        if not faces:
            continue
        points = faces[0].landmarks
        figures = head_poses(networks.pose, cut(turned, faces[0].box)[None])[0]
        across = points[1] - points[0]
        yaw.append(figures[0])
        nose.append((points[2] - points[:2].mean(axis=0)) @ across / (across @ across))
        roll.append(figures[2])
        eyes.append(np.degrees(np.arctan2(across[1], across[0])))
    assert np.corrcoef(yaw, nose)[0, 1] > 0.8
    assert np.corrcoef(roll, eyes)[0, 1] > 0.9


def test_yaw_error_on_afw(networks):
    """SOURCES: 8.2 degrees in the mean; labels are (yaw, pitch, -roll) in steps of 15."""
    folder = shared_part("faces/afw")
    errors = []
    for photo in json.loads((folder / "annotations.json").read_text()):
        picture = read_rgb(folder / photo["file"])
        scale = 640 / max(picture.shape[:2])
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        faces = networks.detector.detect([cv2.resize(picture, size, interpolation=cv2.INTER_AREA)])[0]
        for truth in photo["faces"]:
            box = np.array(truth["box"])
            best = max(faces, key=lambda face: overlap(face.box / scale, box), default=None)
            if best is None or overlap(best.box / scale, box) < 0.35:
                continue
            x1, y1, x2, y2 = np.maximum(crop_box(best.box / scale), 0).round().astype(int)
            crop = cv2.resize(picture[y1:y2, x1:x2], (64, 64), interpolation=cv2.INTER_AREA)
            found = head_poses(networks.pose, crop[None])[0]
            errors.append(found - [truth["yaw_deg"], truth["pitch_deg"], -truth["roll_deg"]])
    yaw, pitch, roll = np.abs(errors).mean(axis=0)
    assert yaw < 9 and pitch < 10 and roll < 7


def test_company_does_not_change_a_pose(networks, hq_faces):
    crops = np.stack([cv2.resize(face, (64, 64)) for face in hq_faces[:9]])
    together = head_poses(networks.pose, crops)
    for index in range(len(crops)):
        assert np.array_equal(head_poses(networks.pose, crops[index : index + 1])[0], together[index])
