"""Crops of real faces, as each role's network takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from streamgate.errors import StreamgateError
from streamgate.frames import Array
from streamgate.networks.alignment import EXPRESSION_SIZE, arcface_matrix, box_matrix, expression_matrix, ffhq_matrix
from streamgate.networks.detector import Detector
from streamgate.networks.sessions import Session
from streamgate.weights.store import Weights

SCENE = (384, 640)


def crops_of(folders: Sequence[Path], networks: Mapping[str, Weights], most: int) -> dict[str, Array]:
    """Up to `most` rows RGB uint8 for each role, cut from the pictures of `folders`."""
    detector = Detector(Session(networks["detector"], "cpu"))
    rows: dict[str, list[Array]] = {role: [] for role in networks}
    for path in (path for folder in folders for path in sorted(folder.glob("*"))):
        if len(rows["detector"]) == most:
            break
        picture = cv2.imread(str(path))
        if picture is None:
            continue
        picture = np.ascontiguousarray(picture[..., ::-1])
        if not (found := detector.detect([picture])[0]):
            continue
        face = found[0]
        scale = SCENE[0] / max(picture.shape[:2])
        aligned = (arcface_matrix(face.landmarks), (112, 112))
        views = {
            "detector": (np.array([[scale, 0, 0], [0, scale, 0]]), SCENE[::-1]),
            "recognizer": aligned,
            "pose": aligned if "recognizer" in networks["pose"].roles else (box_matrix(face.box, 64), (64, 64)),
            "expression": (expression_matrix(face.landmarks), EXPRESSION_SIZE[::-1]),
            "ifqa": (ffhq_matrix(face.landmarks, 256), (256, 256)),
        }
        for role in rows:
            matrix, size = views[role]
            rows[role].append(cv2.warpAffine(picture, matrix, size))
    if not rows["detector"]:
        raise StreamgateError(f"no faces in {', '.join(map(str, folders))}; name folders of pictures")
    return {role: np.stack(pictures) for role, pictures in rows.items()}
