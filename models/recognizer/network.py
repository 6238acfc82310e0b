"""The shipped recognizer as the evaluation runs it, and faces with what is needed to degrade them in place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.common.images import DataError
from models.recognizer.faces import DETECT_SIDES, SIDE, warp
from streamgate.networks import Networks
from streamgate.networks.alignment import arcface_matrix
from streamgate.networks.runtime import Session, check_pictures
from streamgate.quality.serfiq import official, raw_from_spread
from streamgate.zoo.store import from_card


@dataclass(frozen=True)
class Face:
    """A picture uint8 [H, W, 3] RGB and one face's landmarks [5, 2] and box [4] in its pixels."""

    picture: np.ndarray
    landmarks: np.ndarray
    box: np.ndarray

    @property
    def crop(self) -> np.ndarray:
        """uint8 [112, 112, 3], ArcFace-aligned."""
        return self.align(self.picture)

    def align(self, picture: np.ndarray) -> np.ndarray:
        """Another picture of the same size, cut at this face's place."""
        return warp(picture, arcface_matrix(self.landmarks), SIDE)

    def paste(self, picture: np.ndarray, crop: np.ndarray) -> np.ndarray:
        """The picture with an aligned crop put back at this face's place."""
        matrix, size = arcface_matrix(self.landmarks), (picture.shape[1], picture.shape[0])
        back = cv2.warpAffine(crop, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        inside = cv2.warpAffine(np.ones((SIDE, SIDE), np.uint8), matrix, size, flags=cv2.WARP_INVERSE_MAP)
        return np.where(inside[..., None] > 0, back, picture)

    def on(self, picture: np.ndarray) -> Face:
        """The same face in another version of its picture."""
        return Face(picture, self.landmarks, self.box)

    def eye_distance(self) -> float:
        """Pixels between the eyes."""
        return float(np.hypot(*(self.landmarks[1] - self.landmarks[0])))


@dataclass(frozen=True)
class Output:
    """Rows for N faces, as the graph gives them."""

    embedding: np.ndarray
    spread: np.ndarray
    pose: np.ndarray
    visible: np.ndarray

    def normalised(self) -> np.ndarray:
        """Embeddings of length 1."""
        return self.embedding / np.linalg.norm(self.embedding, axis=1, keepdims=True)

    def serfiq(self) -> np.ndarray:
        """SER-FIQ's raw figure, 0..1."""
        return np.array([raw_from_spread(float(d)) for d in self.spread])


class OwnNetwork:
    """`recognizer.onnx` of a folder with its card."""

    def __init__(self, folder: Path) -> None:
        weights = from_card(folder, "embedded") if (folder / "card.json").is_file() else None
        if weights is None:
            raise DataError(f"{folder}: no recognizer.onnx with its card.json; run train.py --export first")
        self.card = json.loads((folder / "card.json").read_text())
        self.path = weights.path
        self._session = Session(weights, "cpu")

    def run(self, crops: np.ndarray) -> Output:
        """Crops uint8 [N, 112, 112, 3]."""
        found = self._session.run_rows(check_pictures(crops, SIDE))
        return Output(found["embedding"], found["spread"], found["pose"], found["visible"])

    def scalar(self, output: Output) -> np.ndarray:
        """SER-FIQ's scalar 0..100 by the card's alpha and r; NaN when the card has none."""
        fit = self.card.get("calibration") or {"alpha": np.nan, "r": np.nan}
        return np.array([100 * official(float(raw), fit["alpha"], fit["r"]) for raw in output.serfiq()])


def find_face(picture: np.ndarray, networks: Networks) -> Face | None:
    """The face nearest to the middle, as the training faces were found."""
    long_side = max(picture.shape[:2])
    scale = min(max(long_side, DETECT_SIDES[0]), DETECT_SIDES[1]) / long_side
    faces = detect(picture, networks, scale)
    middle = np.array(picture.shape[1::-1]) / 2
    return min(faces, key=lambda face: float(np.linalg.norm(face.landmarks.mean(axis=0) - middle)), default=None)


def detect(picture: np.ndarray, networks: Networks, scale: float) -> list[Face]:
    """Every face of a picture, looked for at `scale`."""
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    filter_ = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = picture if scale == 1 else cv2.resize(picture, size, interpolation=filter_)
    return [
        Face(picture, (face.landmarks.astype(np.float64) + 0.5) / scale - 0.5, face.box.astype(np.float64) / scale)
        for face in networks.detector.detect([small])[0]
    ]


def sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian over the variance of luma, as DESIGN 4.3, on the aligned crop."""
    luma = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(cv2.Laplacian(luma, cv2.CV_32F).var() / max(float(luma.var()), 1.0))
