"""Scenes: labels follow their faces through every cut, turn and mirror; pictures are packed and labelled once."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.real_weights import standard_models

pytest.importorskip("torch")
pytest.importorskip("skimage")
pytest.importorskip("onnxruntime")

from models.common.images import DataError, read_rgb, write_rgb
from models.common.overlap import EvaluationSet
from models.detector import faces as rows_of
from models.detector.batches import Batches
from models.detector.labels import Labelled
from models.detector.pictures import LeaveOut, PictureSet, prepare, without_echoes
from models.detector.scenes import Composition, Scenes, mirror, move, split
from models.detector.smoke import synthetic_pictures
from streamgate.networks.detector import Detector
from streamgate.networks.sessions import Session
from streamgate.weights.store import from_receipt

PLAIN = Composition(
    close_up=0.0, close_up_large=0.0, empty=0.0, whole=0.0, smallest_px=14.0, close_low=0.3, close_high=0.9,
    most_enlarged=4.5, background_cells=0.0, turned=0.5, turn_degrees=20.0, toned=0.0, grey=0.0, night=0.0,
    blurred=0.0, coded=0.0, noisy=0.0, small_camera=0.0,
)  # fmt: skip
MARKS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255))


class NoDetector:
    """Stands where nothing may be labelled by a network."""

    def detect(self, *_: object) -> list[list[object]]:
        raise AssertionError("labelled pictures are not looked at")


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    """One labelled picture whose landmarks are coloured discs, one of a smaller face in the corner, on white."""
    folder = tmp_path_factory.mktemp("marked")
    picture = np.full((240, 320, 3), 255, np.uint8)
    rows = rows_of.rows(1)
    rows[0, rows_of.BOX] = 100, 60, 220, 200
    points = np.array([[130, 100], [190, 100], [160, 130], [135, 165], [185, 165]], np.float32)
    for point, colour in zip(points, MARKS, strict=True):
        cv2.circle(picture, tuple(int(v) for v in point), 9, colour, -1)
    rows[0, rows_of.POINTS] = points.reshape(-1)
    rows[0, [rows_of.HAS_POINTS, rows_of.SCORE]] = 1
    write_rgb(folder / "a.png", picture)
    label = folder / "label.txt"
    label.write_text("# a.png\n")
    labelled = [(label, [Labelled(folder / "a.png", "a.png", rows)])]
    return prepare([], [], labelled, LeaveOut(), folder / "cache", NoDetector(), 10, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [PLAIN, replace(PLAIN, close_up=1.0)])
def test_landmarks_lie_on_what_they_label(marked: PictureSet, how: Composition) -> None:
    scenes = Scenes(marked, [0], how)
    seen = 0
    for seed in range(30):
        scene, faces = scenes.draw(np.random.default_rng(seed), 256, 320)
        assert scene.shape == (256, 320, 3) and scene.dtype == np.uint8
        for row in faces[faces[:, rows_of.SCORE] == 1]:
            side = float(rows_of.sides(row[None])[0])
            if side < 40:
                continue
            points = row[rows_of.POINTS].reshape(5, 2)
            for i, (x, y) in enumerate(np.round(points).astype(int)):
                if not (0 <= x < 320 and 0 <= y < 256) or not inside(points[i], row[rows_of.BOX]):
                    continue
                colour = scene[y, x].astype(int)
                # Mirrored pictures exchange left and right: the left eye's colour may be the right eye's, never a
                # mouth corner's.
                near = [k for k, mark in enumerate(MARKS) if np.abs(colour - mark).max() < 90]
                assert near and near[0] in ((0, 1), (0, 1), (2,), (3, 4), (3, 4))[i]
                seen += 1
    assert seen > 40


def inside(point: np.ndarray, box: np.ndarray) -> bool:
    return bool((point > box[:2] + 1).all() and (point < box[2:] - 1).all())


def test_a_batch_is_a_function_of_its_step(marked: PictureSet) -> None:
    batches = Batches(Scenes(marked, [0], PLAIN), [[2, 64, 96]], [[3, 96, 64]], join=5, seed=1)
    first, again = batches[3], pickle.loads(pickle.dumps(batches))[3]
    assert first["image"].shape == (2, 64, 96, 3) and batches[5]["image"].shape == (3, 96, 64, 3)
    assert np.array_equal(first["image"], again["image"]) and np.array_equal(first["faces"], again["faces"])
    assert not np.array_equal(first["image"], batches[4]["image"])


def test_mirroring_twice_changes_nothing() -> None:
    rows = np.random.default_rng(0).uniform(0, 90, (3, rows_of.COLUMNS)).astype(np.float32)
    assert np.allclose(mirror(mirror(rows, 100), 100), rows, atol=1e-4)
    once = mirror(rows, 100)
    assert np.allclose(once[:, 4], 99 - rows[:, 6])  # the left eye is where the right one was


def test_moving_scales_and_shifts() -> None:
    rows = rows_of.rows(1)
    rows[0, :6] = 0, 0, 10, 20, 4.5, 9.5
    moved = move(rows, np.eye(2), 2.0, np.array([3.0, 4.0]))
    assert moved[0, :6].tolist() == [3, 4, 23, 44, 12.5, 23.5]


def test_cells_tile_the_scene() -> None:
    for seed in range(20):
        covered = np.zeros((256, 320), int)
        for x1, y1, x2, y2 in split(np.random.default_rng(seed), 320, 256):
            assert x2 - x1 >= 48 and y2 - y1 >= 48
            covered[y1:y2, x1:x2] += 1
        assert (covered == 1).all()


def test_guesses_inside_a_sure_face_are_dropped() -> None:
    rows = rows_of.rows(3)
    rows[:, rows_of.BOX] = [[0, 0, 100, 100], [10, 10, 50, 50], [200, 0, 230, 30]]
    rows[:, rows_of.SCORE] = 0.99, 0.4, 0.4
    assert without_echoes(rows)[:, 0].tolist() == [0, 200]
    assert len(without_echoes(rows[:0])) == 0


def test_the_standard_detector_labels_and_evaluation_pictures_are_left_out(tmp_path: Path) -> None:
    folder = standard_models() / "retinaface-mnet025-foamliu"
    weights = from_receipt(folder, "standard")
    assert weights is not None
    detector = Detector(Session(weights, "cpu"))
    faces, empty = synthetic_pictures(tmp_path / "pictures", 4)
    (faces / "broken.png").write_bytes(b"broken")
    (tmp_path / "seen").mkdir()
    write_rgb(tmp_path / "seen/copy.png", read_rgb(faces / "001.png"))
    leave_out = LeaveOut(evaluation=EvaluationSet.read([tmp_path / "seen"]))
    pictures = prepare([faces], [empty], [], leave_out, tmp_path / "cache", detector, 100, 1)
    assert pictures.counts["left out"] >= 1 and pictures.counts["unreadable"] == 1
    assert "faces/001.png" not in pictures.names
    assert pictures.backgrounds.sum() == 4
    kept = [faces for faces in pictures.faces if len(faces)]
    assert kept and all(rows[:, rows_of.SCORE].max() > 0.8 for rows in kept)
    with pytest.raises(DataError, match="at least 50 are needed"):
        prepare([faces], [empty], [], leave_out, tmp_path / "cache", detector, 100, 50)
