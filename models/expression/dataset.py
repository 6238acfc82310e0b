"""Training faces, aligned once with a margin around the network's crop, and the teacher's labels for them.

A canvas is uint8 [188, 172, 3] RGB at the scale of the network's crop, aligned by the landmarks that the detector finds
in the undegraded picture. Labels are in canvas pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.common.images import DataError, decode_rgb
from models.expression.architecture import BLENDSHAPES, MEASURED, POINTS
from models.expression.faces import BORDER_LEVEL, SMALLEST_EYES, read_crops
from streamgate.networks.alignment import EXPRESSION_EYE_DISTANCE, EXPRESSION_SIZE, expression_matrix

MARGIN = 22
CANVAS = (EXPRESSION_SIZE[0] + 2 * MARGIN, EXPRESSION_SIZE[1] + 2 * MARGIN)
_AGREEMENT = 0.35
"""Maximum distance between the eye positions of detector and teacher, in units of the distance between the eyes. If it
is larger, the two found different faces."""

LEFT_LIDS, RIGHT_LIDS = ((386, 374), (385, 380), (387, 373)), ((159, 145), (158, 153), (160, 144))
LEFT_CORNERS, RIGHT_CORNERS = (362, 263), (33, 133)
INNER_LIPS, MOUTH = ((13, 14), (82, 87), (312, 317)), (61, 291)


@dataclass(frozen=True)
class FaceSet:
    """Labelled faces, all arrays in the same order.

    canvases: uint8 [n, 188, 172, 3] (a memory map); points: float32 [n, P, 2] in canvas pixels; signals: float32
    [n, S]; pose: float32 [n, 3] in degrees, with the roll in the canvas; turn: float32 [n], degrees by which the
    alignment rotated the picture; names; clips: the clip of each face, "" for stills.
    """

    canvases: np.ndarray
    points: np.ndarray
    signals: np.ndarray
    pose: np.ndarray
    turn: np.ndarray
    names: list[str]
    clips: list[str]

    def upright(self, pose: np.ndarray) -> np.ndarray:
        """Angles [n, 3] in the pictures, from angles in the crops."""
        return pose - self.turn[:, None] * np.array([0.0, 0.0, 1.0])

    def __len__(self) -> int:
        return len(self.names)


def prepare(bases: Sequence[Path], folder: Path, smallest_eyes: float = SMALLEST_EYES) -> FaceSet:
    """Align the faces of labelled crops (faces.py, teacher.py), or reuse those in `folder` if nothing has changed.

    Faces that the teacher did not find, or found elsewhere than the detector, are left out. Raises DataError if no face
    remains or labels are missing.
    """
    sets = [_prepare_one(base, folder, smallest_eyes) for base in bases]
    sets = [found for found in sets if len(found)]
    if not sets:
        raise DataError(f"no labelled faces in {', '.join(str(base) for base in bases)}: run teacher.py on them first")
    return FaceSet(
        Canvases([found.canvases for found in sets]),  # type: ignore[arg-type]
        np.concatenate([found.points for found in sets]),
        np.concatenate([found.signals for found in sets]),
        np.concatenate([found.pose for found in sets]),
        np.concatenate([found.turn for found in sets]),
        [name for found in sets for name in found.names],
        [clip for found in sets for clip in found.clips],
    )


class Canvases:
    """Memory maps of several files as one sequence; a pickle contains only the paths."""

    def __init__(self, maps: Sequence[np.ndarray]) -> None:
        self._maps = list(maps)
        self._starts = np.cumsum([0, *(len(map_) for map_ in maps)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> np.ndarray:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return np.asarray(self._maps[file][index - self._starts[file]])

    def __getstate__(self) -> dict[str, object]:
        return {"paths": [(str(map_.filename), map_.shape) for map_ in self._maps], "starts": self._starts}

    def __setstate__(self, state: dict) -> None:
        self._maps = [np.memmap(path, np.uint8, "r", shape=shape) for path, shape in state["paths"]]
        self._starts = state["starts"]


def _prepare_one(base: Path, folder: Path, smallest_eyes: float) -> FaceSet:
    folder.mkdir(parents=True, exist_ok=True)
    labels = base.with_suffix(".npz")
    if not labels.is_file():
        raise DataError(f"{labels}: missing; run teacher.py on {base.parent} first")
    key = hashlib.sha256(
        labels.read_bytes() + repr((CANVAS, EXPRESSION_EYE_DISTANCE, smallest_eyes, "replicated, turn")).encode()
    )
    place = folder / f"{base.name}-{key.hexdigest()[:10]}"
    if not place.with_suffix(".json").is_file():
        _fill(base, place, smallest_eyes)
    index = json.loads(place.with_suffix(".json").read_text())
    count = len(index["names"])
    with np.load(place.with_suffix(".npz"), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in ("points", "signals", "pose", "turn")}
    canvases = np.memmap(place.with_suffix(".u8"), np.uint8, "r", shape=(count, *CANVAS, 3)) if count else np.empty(0)
    return FaceSet(canvases, **found, names=index["names"], clips=index["clips"])


def _fill(base: Path, place: Path, smallest_eyes: float) -> None:
    index, jpegs = read_crops(base)
    with np.load(base.with_suffix(".npz"), allow_pickle=False) as arrays:
        mesh, shapes, pose = arrays["points"], arrays["blendshapes"], arrays["pose"]
    names, clips, points, signals, poses, turns = [], [], [], [], [], []
    with place.with_suffix(".u8").open("wb") as out:
        for i, data in enumerate(jpegs):
            if index["eyes"][i] < smallest_eyes or not np.isfinite(mesh[i]).all():
                continue
            landmarks = np.array(index["landmarks"][i])
            try:
                matrix = canvas_matrix(landmarks)
            except ValueError:
                continue
            placed = placed_points(mesh[i, :, :2], matrix)
            eyes = np.stack([placed[list(RIGHT_CORNERS)].mean(axis=0), placed[list(LEFT_CORNERS)].mean(axis=0)])
            if np.abs(eyes - placed_points(landmarks[:2], matrix)).max() > _AGREEMENT * EXPRESSION_EYE_DISTANCE:
                continue
            picture = decode_rgb(data)
            assert picture is not None
            out.write(align(filled(picture), matrix).tobytes())
            names.append(index["names"][i])
            clips.append(index["clips"][i])
            points.append(placed[list(POINTS)])
            signals.append(np.concatenate([shapes[i, 1:], measured(placed)]))
            turn = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
            poses.append(pose[i] + np.array([0.0, 0.0, turn]))
            turns.append(turn)
    np.savez(
        place.with_suffix(".npz"),
        points=np.array(points, np.float32).reshape(-1, len(POINTS), 2),
        signals=np.array(signals, np.float32).reshape(-1, len(BLENDSHAPES) + len(MEASURED)),
        pose=np.array(poses, np.float32).reshape(-1, 3),
        turn=np.array(turns, np.float32),
    )
    place.with_suffix(".json").write_text(json.dumps({"names": names, "clips": clips}))


def filled(crop: np.ndarray) -> np.ndarray:
    """The crop, in which the grey border that faces.py puts around pictures is replaced by the nearest pixels.

    Data sets of closed eyes are cropped tightly, so the network would learn that the border means closed eyes.
    """
    grey = (np.abs(crop.astype(np.int16) - BORDER_LEVEL) <= 6).all(axis=2)
    rows, columns = np.nonzero(grey.mean(axis=1) < 0.98)[0], np.nonzero(grey.mean(axis=0) < 0.98)[0]
    if not len(rows) or not len(columns):
        return crop
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    around = (top, crop.shape[0] - bottom, left, crop.shape[1] - right)
    if not any(around):
        return crop
    inner = crop[top:bottom, left:right]
    # JPEG and resizing mix border and picture over a few pixels.
    seam = [min(3, size) for size in around]
    inner = inner[seam[0] : len(inner) - seam[1], seam[2] : inner.shape[1] - seam[3]]
    widths = [size + cut for size, cut in zip(around, seam, strict=True)]
    return cv2.copyMakeBorder(np.ascontiguousarray(inner), *widths, cv2.BORDER_REPLICATE)


def canvas_matrix(landmarks: np.ndarray) -> np.ndarray:
    """The matrix [2, 3] from pixels of the source to pixels of the canvas."""
    return expression_matrix(landmarks) + np.array([[0.0, 0.0, MARGIN], [0.0, 0.0, MARGIN]])


def align(picture: np.ndarray, matrix: np.ndarray, size: tuple[int, int] = CANVAS) -> np.ndarray:
    """The picture after the transform by a matrix, uint8 [*size, 3]; if it shrinks, it is first smoothed (aliasing)."""
    gain = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if gain < 0.8:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.5 * np.sqrt(1 / gain**2 - 1))
    return cv2.warpAffine(picture, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def placed_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points [n, 2] after the transform by a matrix [2, 3]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def measured(mesh: np.ndarray) -> np.ndarray:
    """The lengths named by `MEASURED`, from the mesh [478, 2] in pixels of the canvas."""

    def gap(pairs: Sequence[tuple[int, int]]) -> float:
        return float(np.mean([mesh[low] - mesh[high] for high, low in pairs], axis=0)[1])

    def iris(centre: int, corners: tuple[int, int]) -> np.ndarray:
        return mesh[centre] - mesh[list(corners)].mean(axis=0)

    left, right = iris(473, LEFT_CORNERS), iris(468, RIGHT_CORNERS)
    width = float(np.hypot(*(mesh[MOUTH[1]] - mesh[MOUTH[0]])))
    lengths = (gap(LEFT_LIDS), gap(RIGHT_LIDS), gap(INNER_LIPS), width, left[0], right[0], -left[1], -right[1])
    return np.array(lengths) / EXPRESSION_EYE_DISTANCE
