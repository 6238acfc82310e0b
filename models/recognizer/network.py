"""The recognizer as the evaluation runs it, and faces that can be degraded inside their picture."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.common.images import DataError
from models.recognizer.faces import DETECT_SIDES, SIDE, warp
from streamgate.config import load_config
from streamgate.faces import Evidence, Pose
from streamgate.faces import Face as FoundFace
from streamgate.measures import built_in_measures
from streamgate.measures.serfiq import raw_from_spread
from streamgate.networks import Networks
from streamgate.networks.alignment import arcface_matrix
from streamgate.networks.pose import upright
from streamgate.networks.recognizer import Recognizer
from streamgate.networks.sessions import Session
from streamgate.scoring.calibration import Calibration
from streamgate.scoring.evaluator import Evaluator
from streamgate.weights.store import from_card


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
        """The crop of another picture of the same size at this face's position."""
        return warp(picture, arcface_matrix(self.landmarks), SIDE)

    def paste(self, picture: np.ndarray, crop: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """The picture with an aligned crop pasted back at this face's position (only inside `where`, if given)."""
        matrix, size = arcface_matrix(self.landmarks), (picture.shape[1], picture.shape[0])
        back = cv2.warpAffine(crop, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        part = np.ones((SIDE, SIDE), np.uint8) if where is None else where.astype(np.uint8)
        inside = cv2.warpAffine(part, matrix, size, flags=cv2.WARP_INVERSE_MAP)
        return np.where(inside[..., None] > 0, back, picture)

    def on(self, picture: np.ndarray) -> Face:
        """The same face in another version of its picture."""
        return Face(picture, self.landmarks, self.box)

    def eye_distance(self) -> float:
        """Pixels between the eyes."""
        return float(np.hypot(*(self.landmarks[1] - self.landmarks[0])))


@dataclass(frozen=True)
class Output:
    """The graph's outputs for N faces; `eyes` is None if the graph has no such output."""

    embedding: np.ndarray
    spread: np.ndarray
    pose: np.ndarray
    visible: np.ndarray
    eyes: np.ndarray | None

    def normalised(self) -> np.ndarray:
        """Embeddings of length 1."""
        return self.embedding / np.linalg.norm(self.embedding, axis=1, keepdims=True)

    def serfiq(self) -> np.ndarray:
        """SER-FIQ's raw value, 0..1."""
        return np.array([raw_from_spread(float(d)) for d in self.spread])


class OwnNetwork:
    """`recognizer.onnx` of a folder with its card, opened as the package opens it.

    Attributes:
        card: the card; path: of the ONNX file.
        models: value for `--models`: these weights, and the embedded weights for the other roles.
    """

    def __init__(self, folder: Path) -> None:
        weights = from_card(folder, "embedded") if (folder / "card.json").is_file() else None
        if weights is None:
            raise DataError(f"{folder}: no recognizer.onnx with its card.json; run train.py --export first")
        self.card = json.loads((folder / "card.json").read_text())
        self.path = weights.path
        self._recognizer = Recognizer(Session(weights, "cpu"))
        self._place = tempfile.TemporaryDirectory()
        (Path(self._place.name) / "recognizer").symlink_to(folder.resolve(), target_is_directory=True)
        self.models = f"{self._place.name},embedded"

    @functools.cached_property
    def _networks(self) -> Networks:
        """The networks of all roles; only `measures`, `alone` and `judge` need them."""
        return Networks.open(self.models, "cpu")

    @functools.cached_property
    def _calibration(self) -> Calibration:
        return Calibration.of_networks(self._networks, load_config())

    @property
    def measures(self) -> tuple[str, ...]:
        """The calibrated measures that use this graph's outputs; `occlusion` uses the expression network instead."""
        fed = ("serfiq", "yaw", "pitch", "roll", "eyes")
        return tuple(name for name in fed if name not in self._calibration.absent)

    @property
    def alone(self) -> list[str]:
        """Settings with which the set consists of `measures` only."""
        names = [spec.name for spec in built_in_measures() if spec.name not in self.measures]
        return [f"measures.{name}.use=false" for name in names]

    def run(self, crops: np.ndarray) -> Output:
        """Crops uint8 [N, 112, 112, 3]."""
        found = self._recognizer.run(crops)
        if found.pose is None or found.visible is None:
            raise DataError(f"{self.path}: has no pose or no visible share")
        return Output(found.embedding, found.spread, found.pose, found.visible, found.eyes)

    def judge(self, faces: Sequence[Face], output: Output) -> list[tuple[str, ...]]:
        """The reasons why the gate of the preset studio rejects each face by `measures` alone; empty if it passes."""
        judge = Evaluator(load_config("studio", self.alone), self._calibration)
        verdicts = []
        for i, face in enumerate(faces):
            values = {"spread": float(output.spread[i])}
            if output.eyes is not None:
                values["eyes_open"] = float(output.eyes[i])
            evidence = Evidence(values, pose=Pose(*upright(output.pose[i], arcface_matrix(face.landmarks)).tolist()))
            measures = judge.measures(evidence)
            height, width = face.picture.shape[:2]
            found = judge.gate(FoundFace(face.box, face.landmarks, 1.0), evidence, measures, width, height)
            verdicts.append(found.reasons if not found.passed else ())
        return verdicts


def find_face(picture: np.ndarray, networks: Networks) -> Face | None:
    """The face nearest to the middle, found in the same way as the training faces; None if there is none."""
    long_side = max(picture.shape[:2])
    scale = min(max(long_side, DETECT_SIDES[0]), DETECT_SIDES[1]) / long_side
    faces = detect(picture, networks, scale)
    middle = np.array(picture.shape[1::-1]) / 2
    return min(faces, key=lambda face: float(np.linalg.norm(face.landmarks.mean(axis=0) - middle)), default=None)


def detect(picture: np.ndarray, networks: Networks, scale: float) -> list[Face]:
    """Every face of a picture, detected in the picture scaled by `scale`."""
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    filter_ = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = picture if scale == 1 else cv2.resize(picture, size, interpolation=filter_)
    return [
        Face(picture, (face.landmarks.astype(np.float64) + 0.5) / scale - 0.5, face.box.astype(np.float64) / scale)
        for face in networks.detector.detect([small])[0]
    ]


def sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian divided by the variance of luma, on the aligned crop."""
    luma = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(cv2.Laplacian(luma, cv2.CV_32F).var() / max(float(luma.var()), 1.0))
