"""Photographed and drawn faces for training the head `real`, found and aligned as in a run."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.common.degrade import draw_mixture, tone
from models.common.images import PICTURE_SUFFIXES, DataError, decode_rgb
from models.expression.batches import Augmentation
from models.expression.dataset import align
from models.expression.faces import CLIP_SUFFIXES, detected, frames
from streamgate.networks import Networks
from streamgate.networks.alignment import EXPRESSION_SIZE, expression_matrix
from streamgate.scoring.evaluator import is_turned

MARGIN = 16
CANVAS = (EXPRESSION_SIZE[0] + 2 * MARGIN, EXPRESSION_SIZE[1] + 2 * MARGIN)
_SMALLEST_EYES = 14.0
_BORDER = 0.1
"""Width of the grey border around a picture, as a share of its long side; drawings are often cropped tightly."""
_INTERVAL, _LONGEST = 1.0, 12
"""Seconds between the frames of a clip, and maximum number of frames."""
_FURTHEST = 0.25
"""Maximum distance of the network's landmarks from the detector's, in distances between the eyes, as in
scoring/faces.py."""


@dataclass(frozen=True)
class Source:
    """The faces of one folder.

    canvases: uint8 [n, 176, 160, 3], the faces with a margin; real: they are photographs; kind: row of the table.
    """

    name: str
    kind: str
    real: bool
    canvases: np.ndarray


def read_sources(folder: Path) -> list[Source]:
    """Read what `cut_source` wrote. Raises DataError if photographs or drawings are missing."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as kept:
            source = Source(path.stem, str(kept["kind"]), bool(kept["real"]), kept["crops"])
        if len(source.canvases):
            found.append(source)
    if {source.real for source in found} != {True, False}:
        raise DataError(f"{folder}: give folders of both kinds, --photographs and --drawings")
    return found


def cut_source(
    folder: Path, kind: str, real: bool, target: Path, networks: Networks, left_out: Collection[str] = ()
) -> None:
    """Write every face of a folder of pictures and clips to `target`/NAME.npz, unless this file exists.

    left_out: first 16 hexadecimal digits of the sha256 of pictures that are skipped.
    """
    path = target / f"{folder.name}.npz"
    if path.is_file():
        return
    crops = []
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        if file.suffix.lower() in PICTURE_SUFFIXES:
            data = file.read_bytes()
            if hashlib.sha256(data).hexdigest()[:16] in left_out:
                continue
            picture = decode_rgb(data)
            crops += [] if picture is None else canvases_of(picture, networks, _BORDER)
        elif file.suffix.lower() in CLIP_SUFFIXES:
            for _, picture in frames(file, _INTERVAL, _LONGEST):
                crops += canvases_of(picture, networks, 0.0)
    target.mkdir(parents=True, exist_ok=True)
    stacked = np.array(crops, np.uint8).reshape(-1, *CANVAS, 3)
    part = path.with_suffix(".part.npz")
    np.savez(part, crops=stacked, kind=kind, real=real)
    part.replace(path)


def canvases_of(picture: np.ndarray, networks: Networks, border: float) -> list[np.ndarray]:
    """The faces of a picture uint8 [H, W, 3] RGB, aligned by the same landmarks as in a run: uint8 [176, 160, 3]."""
    picture, faces = detected(picture, networks, border)
    found = []
    for _, landmarks in faces:
        if np.hypot(*(landmarks[1] - landmarks[0])) >= _SMALLEST_EYES:
            shift = np.array([[0.0, 0.0, MARGIN], [0.0, 0.0, MARGIN]])
            matrix = expression_matrix(refined(picture, landmarks, networks)) + shift
            found.append(align(picture, matrix, CANVAS))
    return found


def refined(picture: np.ndarray, landmarks: np.ndarray, networks: Networks) -> np.ndarray:
    """The expression network's landmarks, or the given ones if the face is turned or the two differ too much."""
    assert networks.expression is not None
    matrix = expression_matrix(landmarks)
    (output,) = networks.expression.run(align(picture, matrix, EXPRESSION_SIZE)[None])
    moved = (output.landmarks - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    far = np.hypot(*(moved - landmarks).T).max() / np.hypot(*(landmarks[1] - landmarks[0]))
    return landmarks if far > _FURTHEST or is_turned(output.yaw, output.pitch) else moved


def view(canvas: np.ndarray, how: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """A random view of a face, uint8 [144, 128, 3]: shifted and rotated like an imprecise detection, and with changed
    tones, degraded or grey, each with its probability in `how`.
    """
    if rng.random() < 0.5:
        canvas = canvas[:, ::-1]
    angle, gain = rng.normal(0, how.turn_degrees), np.exp(np.clip(rng.normal(0, how.scale), -0.2, 0.2))
    matrix = cv2.getRotationMatrix2D(((CANVAS[1] - 1) / 2, (CANVAS[0] - 1) / 2), float(angle), float(gain))
    matrix[:, 2] += np.clip(rng.normal(0, how.shift_px, 2), -8, 8) - MARGIN
    crop = align(np.ascontiguousarray(canvas), matrix, EXPRESSION_SIZE)
    if rng.random() < how.toned:
        crop = tone(crop, rng)
    if rng.random() < how.degraded:
        crop = draw_mixture(rng).apply(crop, float(rng.uniform(0, 0.8)))
    if rng.random() < how.grey:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(crop)


def centre(canvases: np.ndarray) -> np.ndarray:
    """The crops in the middle of canvases, uint8 [n, 144, 128, 3]."""
    return np.ascontiguousarray(canvases[:, MARGIN:-MARGIN, MARGIN:-MARGIN])
