"""Label files: what fits is read, what does not fit is named by file and line before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from models.common.images import DataError, write_rgb
from models.detector.faces import BOX, HAS_POINTS, POINTS, SCORE
from models.detector.labels import read_labels

GOOD = "40 30 50 60 55 50 0 75 50 0 65 60 0 57 75 0 73 75 0 0.9"


def label_file(folder: Path, *faces: str) -> Path:
    """label.txt with one 200x120 picture a.png in images/."""
    (folder / "images").mkdir()
    write_rgb(folder / "images/a.png", np.full((120, 200, 3), 90, np.uint8))
    file = folder / "label.txt"
    file.write_text("\n".join(["# a.png", *faces]) + "\n")
    return file


def test_boxes_and_landmarks_are_read(tmp_path: Path) -> None:
    bare = "1 2 30 40 " + "-1 -1 -1 " * 5 + "0.4"
    (picture,) = read_labels(label_file(tmp_path, GOOD, bare, "5 5 20 20"))
    assert picture.name == "a.png" and len(picture.faces) == 3
    assert picture.faces[0, BOX].tolist() == [40, 30, 90, 90]
    assert picture.faces[0, POINTS].reshape(5, 2).tolist() == [[55, 50], [75, 50], [65, 60], [57, 75], [73, 75]]
    assert picture.faces[:, HAS_POINTS].tolist() == [1, 0, 0]
    assert picture.faces[:, SCORE].tolist() == [1, 1, 1]


def test_a_head_on_its_side_is_no_swapped_label(tmp_path: Path) -> None:
    rolled = "40 30 60 60 70 40 0 70 80 0 60 60 0 50 42 0 50 78 0 1"
    assert len(read_labels(label_file(tmp_path, rolled))[0].faces) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("180 30 50 60", "extends beyond its 200x120 picture"),
        ("-9 30 50 60", "extends beyond"),
        ("40 30 -50 60", "sides must be positive"),
        ("90 90 40 30 nose", "not numbers"),
        ("40 30 50", "3 values"),
        ("40 30 nan 60", "not finite"),
        ("40 30 50 60 75 50 0 55 50 0 65 60 0 57 75 0 73 75 0 1", "landmarks are swapped"),
        ("40 30 50 60 55 50 0 75 50 0 65 60 0 73 75 0 57 75 0 1", "mouth corner"),
        ("40 30 50 60 55 50 0 75 50 0 165 60 0 57 75 0 73 75 0 1", "outside its box"),
    ],
)
def test_faulty_labels_are_named_by_file_and_line(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(label_file(tmp_path, GOOD, line))
    assert "label.txt:3: " in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_faults_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"14 faulty labels: .*; and 4 more$"):
        read_labels(label_file(tmp_path, *["0 0 -1 5"] * 14))


def test_missing_pictures_and_loose_faces_are_named(tmp_path: Path) -> None:
    file = label_file(tmp_path, GOOD)
    file.write_text(f"{GOOD}\n# b.png\n{GOOD}\n")
    with pytest.raises(DataError, match=r"label.txt:1: a face before any.*label.txt:2: b.png is not a read"):
        read_labels(file)
