"""Labels made by people, in the text format that RetinaFace published for WIDER FACE.

    # 0--Parade/0_Parade_marchingband_1_849.jpg
    449 330 122 149 488.9 373.6 0 542.1 376.4 0 515.0 412.8 0 485.2 425.9 0 538.4 431.5 0 0.82

A line that starts with # names a picture. Each line below it is a face: x, y, width and height of the box, then x, y
and a flag for each of five landmarks (-1 -1 -1: not labelled), then anything. Coordinates are in pixels of the upright
picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.common.images import DataError
from models.detector import faces as rows_of

SLACK = 2.0
"""Pixels by which a box may extend beyond its picture, because annotators round."""
TOLD = 10
"""Maximum number of faulty lines that an error lists; the others are counted."""


@dataclass(frozen=True)
class Labelled:
    """One picture of a label file; `faces` is float32 [n, 16] (see faces.py)."""

    path: Path
    name: str
    faces: np.ndarray


def read_labels(file: Path) -> list[Labelled]:
    """The pictures that a label file names; they are in `images/` next to the file, or next to the file itself.

    Raises DataError, which lists up to ten faulty labels by file and line, and the number of the others.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    root = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
    found: list[Labelled] = []
    faults: list[str] = []
    size: tuple[int, int] | None = None
    for number, line in enumerate(map(str.strip, lines), start=1):
        place = f"{file.name}:{number}"
        if line.startswith("#"):
            name = line[1:].strip()
            size = _size(root / name)
            if size is None:
                faults.append(f"{place}: {name} is not a readable picture below {root}")
            else:
                found.append(Labelled(root / name, name, rows_of.rows()))
        elif line and not found and not faults:
            faults.append(f"{place}: a face before any `# picture` line")
        elif line and size is not None:
            face, fault = _face(line, size)
            if fault:
                faults.append(f"{place}: {fault}")
            else:
                last = found[-1]
                found[-1] = Labelled(last.path, last.name, np.concatenate([last.faces, face[None]]))
    if faults:
        more = f"; and {len(faults) - TOLD} more" if len(faults) > TOLD else ""
        raise DataError(f"{file}: {len(faults)} faulty labels: {'; '.join(faults[:TOLD])}{more}")
    if not found:
        raise DataError(f"{file}: names no picture (lines that start with # and a picture's path)")
    return found


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture; None if it is not readable."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    return None if picture is None else (picture.shape[1], picture.shape[0])


def _face(line: str, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """The row for a label line, and what is wrong with the line (empty: nothing)."""
    row = rows_of.rows(1)[0]
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        return row, f"not numbers: {line[:60]!r}"
    if len(values) < 4 or 4 < len(values) < 19:
        return row, f"{len(values)} values; 4 for a box, 19 or more with landmarks"
    if not np.isfinite(values).all():
        return row, "not finite"
    x, y, width, height = values[:4]
    if width <= 0 or height <= 0:
        return row, f"box {width:g} x {height:g}: sides must be positive (x y width height, not two corners)"
    if x < -SLACK or y < -SLACK or x + width > size[0] + SLACK or y + height > size[1] + SLACK:
        return row, f"box {x:g} {y:g} {width:g} {height:g} extends beyond its {size[0]}x{size[1]} picture"
    row[rows_of.BOX] = x, y, x + width, y + height
    row[rows_of.SCORE] = 1.0
    points = np.array([values[i : i + 2] for i in range(4, 19, 3)]) if len(values) >= 19 else np.full((5, 2), -1.0)
    if (points == -1).all():
        return row, ""
    fault = _points_fault(points, row[rows_of.BOX], size)
    row[rows_of.POINTS] = points.reshape(-1)
    row[rows_of.HAS_POINTS] = 1.0
    return row, fault


def _points_fault(points: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> str:
    """What is wrong with landmarks [5, 2]; empty: nothing."""
    side = float(np.sqrt(np.prod(box[2:] - box[:2])))
    reach = 0.5 * side
    if (points < box[:2] - reach).any() or (points > box[2:] + reach).any():
        return "a landmark is outside its box by more than half the size of the face"
    if (points < -SLACK).any() or (points > np.array(size) + SLACK).any():
        return f"a landmark is outside its {size[0]}x{size[1]} picture"
    # At any roll, the mouth is clockwise of the axis through the eyes. The tolerance is for profiles, in which the eyes
    # nearly coincide.
    eyes, drop = points[1] - points[0], points[3:].mean(axis=0) - points[:2].mean(axis=0)
    mouth = points[4] - points[3]
    if eyes[0] * drop[1] - eyes[1] * drop[0] < -0.02 * side**2:
        return "landmarks are swapped: the viewer's left eye comes first, then the right one"
    if mouth[0] * drop[1] - mouth[1] * drop[0] < -0.02 * side**2:
        return "landmarks are swapped: the viewer's left mouth corner comes before the right one"
    return ""
