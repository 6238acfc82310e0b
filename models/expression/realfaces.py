"""Photographed and drawn faces for training the head `real`, found and aligned as in a run."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.common.degrade import draw_mixture, greyscale, tone
from models.common.images import PICTURE_SUFFIXES, DataError, decode_rgb
from models.expression.batches import Augmentation
from models.expression.dataset import align
from models.expression.faces import CLIP_SUFFIXES, detected, frames
from streamgate.networks import Networks
from streamgate.networks.alignment import EXPRESSION_SIZE, expression_matrix, ffhq_matrix
from streamgate.networks.ifqa import CROP_SIDE as IFQA_SIDE
from streamgate.scoring.evaluator import is_turned
from streamgate.sources.picture import picture_of_rgb

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

    canvases: uint8 [n, 176, 160, 3], the faces with a margin; real: they are photographs; kind: row of the table;
    squares: uint8 [n, 256, 256, 3], the same faces, FFHQ-aligned as for IFQA, or None if they were not cut; eyes:
    float32 [n], the distance between the eyes of each face in its source picture, in pixels, or None if not stored.
    """

    name: str
    kind: str
    real: bool
    canvases: np.ndarray
    squares: np.ndarray | None = None
    eyes: np.ndarray | None = None


def read_sources(folder: Path) -> list[Source]:
    """Read what `cut_source` wrote. Raises DataError if photographs or drawings are missing."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as kept:
            more = [kept[name] if name in kept.files else None for name in ("squares", "eyes")]
            source = Source(path.stem, str(kept["kind"]), bool(kept["real"]), kept["crops"], *more)
        if len(source.canvases):
            found.append(source)
    if {source.real for source in found} != {True, False}:
        raise DataError(f"{folder}: give folders of both kinds, --photographs and --drawings")
    return found


def cut_source(
    folder: Path,
    kind: str,
    real: bool,
    target: Path,
    networks: Networks,
    left_out: Collection[str] = (),
    squares: bool = False,
) -> None:
    """Write every face of a folder of pictures and clips to `target`/NAME.npz, unless this file exists.

    left_out: first 16 hexadecimal digits of the sha256 of pictures that are skipped; squares: also write the
    FFHQ-aligned faces.
    """
    path = target / f"{folder.name}.npz"
    if path.is_file():
        return
    found: list[tuple[np.ndarray, np.ndarray, float]] = []
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        if file.suffix.lower() in PICTURE_SUFFIXES:
            data = file.read_bytes()
            if hashlib.sha256(data).hexdigest()[:16] in left_out:
                continue
            picture = decode_rgb(data)
            found += [] if picture is None else faces_of(picture, networks, _BORDER)
        elif file.suffix.lower() in CLIP_SUFFIXES:
            for _, picture in frames(file, _INTERVAL, _LONGEST):
                found += faces_of(picture, networks, 0.0)
    target.mkdir(parents=True, exist_ok=True)
    arrays = {
        "crops": np.array([face[0] for face in found], np.uint8).reshape(-1, *CANVAS, 3),
        "eyes": np.array([face[2] for face in found], np.float32),
    }
    if squares:
        arrays["squares"] = np.array([face[1] for face in found], np.uint8).reshape(-1, IFQA_SIDE, IFQA_SIDE, 3)
    part = path.with_suffix(".part.npz")
    np.savez(part, kind=np.array(kind), real=np.array(real), **arrays)
    part.replace(path)


def faces_of(
    picture: np.ndarray, networks: Networks, border: float
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """The faces of a picture uint8 [H, W, 3] RGB, aligned by the same landmarks as in a run. Each has a canvas uint8
    [176, 160, 3], an FFHQ square uint8 [256, 256, 3] and the distance between the eyes in pixels.
    """
    bordered, faces = detected(picture, networks, border)
    width, shown = (bordered.shape[0] - picture.shape[0]) // 2, picture_of_rgb(picture)
    found = []
    for _, landmarks in faces:
        eyes = float(np.hypot(*(landmarks[1] - landmarks[0])))
        if eyes >= _SMALLEST_EYES:
            landmarks = refined(bordered, landmarks, networks)
            shift = np.array([[0.0, 0.0, MARGIN], [0.0, 0.0, MARGIN]])
            canvas = align(bordered, expression_matrix(landmarks) + shift, CANVAS)
            # As in a run, IFQA's square is resampled from the picture without a grey border.
            square = shown.warp(ffhq_matrix(landmarks - width, IFQA_SIDE), IFQA_SIDE)
            found.append((canvas, square, eyes))
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
        crop = greyscale(crop)
    return np.ascontiguousarray(crop)


def centre(canvases: np.ndarray) -> np.ndarray:
    """The crops in the middle of canvases, uint8 [n, 144, 128, 3]."""
    return np.ascontiguousarray(canvases[:, MARGIN:-MARGIN, MARGIN:-MARGIN])
