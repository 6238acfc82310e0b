"""Finalizes kept faces after their track has ended: cuts pictures from the whole frame and selects the encodings.

While a track is open, only regions around its face are held. Afterwards, the whole frames are read from the source
again, but only for the few faces that are kept. Therefore, no whole frame has to be held in memory while a track is
open.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np

from streamgate.config import Config
from streamgate.errors import SourceError
from streamgate.faces import Face
from streamgate.frames import Array, Frame
from streamgate.networks.alignment import arcface_matrix, ffhq_matrix
from streamgate.networks.batcher import InferenceRequest
from streamgate.networks.ifqa import CROP_SIDE as IFQA_SIDE
from streamgate.networks.recognizer import CROP_SIDE as ALIGNED_SIDE
from streamgate.scoring.context import ScoringContext
from streamgate.scoring.lockstep import Steps, run_in_lockstep
from streamgate.scoring.padding import warp_padded
from streamgate.sources import Source
from streamgate.sources.picture import picture_of_rgb
from streamgate.store.images import decode, encode
from streamgate.tracks import CROP_NAMES, BestShot, Crop, Encoding, TrackEnd

_SAME_PICTURE = 4.0
"""Maximum mean difference, in grey levels, between the kept crop and the same crop of a frame read again. If the
difference is larger, a different frame was read."""
_LOWEST = 30
"""Lowest encoder quality that "auto" chooses. There is a limit because the networks are less sensitive to block
artefacts than people are."""


class CropFinalizer:
    """Completes the shots of one source's ended tracks.

    Args:
        source: an open source, from which frames are read again.
    """

    def __init__(self, context: ScoringContext, source: Source) -> None:
        self.missed = 0
        """Number of kept faces that have no loose or whole-frame crop because their frame could not be read again."""
        self._context = context
        self._output = context.config.output
        self._source = source
        self._from_frame = [name for name in ("loose", "frame") if name in self._output.crops]

    def finish(self, ended: TrackEnd) -> TrackEnd:
        """Return `ended` with all pictures of its shots and their encodings.

        A frame that cannot be read again is counted in `missed` and raises no error.
        """
        if not ended.shots or not (self._from_frame or self._output.format != "png"):
            return ended
        shots = [self._with_frame_crops(shot) for shot in ended.shots] if self._from_frame else list(ended.shots)
        if self._output.quality == "auto" and self._output.format != "png":
            shots = [self._encoded_well(shot) for shot in shots]
        elif self._output.format != "png":
            encoding = Encoding(self._output.format, int(self._output.quality))
            shots = [_encoded(shot, dict.fromkeys(CROP_NAMES, encoding)) for shot in shots]
        return replace(ended, shots=tuple(shots))

    def _with_frame_crops(self, shot: BestShot) -> BestShot:
        try:
            frame = self._source.frame_at(shot.pts_seconds)
        except SourceError:
            frame = None
        if frame is None or not self._shows(frame, shot):
            self.missed += 1
            return shot
        return replace(shot, crops={**shot.crops, **self._cut(shot, frame)})

    def _shows(self, frame: Frame, shot: BestShot) -> bool:
        """Whether `frame` is the one that the kept picture was cut from."""
        side = shot.image.shape[0]
        seen = warp_padded(frame.picture, ffhq_matrix(shot.face.landmarks, side), side, self._output.pad)
        return float(np.abs(seen.astype(np.int16) - shot.image).mean()) <= _SAME_PICTURE

    def _cut(self, shot: BestShot, frame: Frame) -> dict[str, Crop]:
        boxes = {
            "loose": loose_box(shot.face, self._output.margin, frame.width, frame.height),
            "frame": (0, 0, frame.width, frame.height),
        }
        crops: dict[str, Crop] = {}
        for name in self._from_frame:
            left, top, right, bottom = boxes[name]
            matrix = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]])
            crops[name] = Crop(
                self._context.pictures.keep(frame.warp(matrix, (right - left, bottom - top))), box=boxes[name]
            )
        return crops

    def _encoded_well(self, shot: BestShot) -> BestShot:
        """For each picture, choose the encoding with the fewest bytes for which the networks' results are nearly the
        same as for the lossless picture."""
        chosen: dict[str, Encoding] = {}
        pictures = {"ffhq": shot.image, **{name: crop.image for name, crop in shot.crops.items()}}
        run_in_lockstep(
            [self._choose(shot, name, image, chosen) for name, image in pictures.items()], self._context.infer
        )
        return _encoded(shot, chosen)

    def _choose(self, shot: BestShot, name: str, image: Array, chosen: dict[str, Encoding]) -> Steps:
        """Find, by bisection, the lowest quality whose effect on the networks' results is within the limits.

        If there is none, the picture stays lossless.
        """
        landmarks = _landmarks_in(shot, name)
        lossless = yield from self._look(image, landmarks, name)
        low, high = _LOWEST, 101  # qualities from `high` up are within the limits; 101 means lossless
        while low < high:
            middle = (low + high) // 2
            coded = decode(encode(image, Encoding(self._output.format, middle)))
            if self._alike(lossless, (yield from self._look(coded, landmarks, name))):
                high = middle
            else:
                low = middle + 1
        chosen[name] = Encoding(self._output.format, high) if high <= 100 else Encoding("png")

    def _look(
        self, image: Array, landmarks: Array, name: str
    ) -> Generator[list[InferenceRequest], list[Any], tuple[Array, float | None]]:
        """The networks' results for a picture: its embedding (normalised) and its IFQA score."""
        picture = picture_of_rgb(image)
        if name == "arcface":
            (output,) = yield [InferenceRequest("recognizer", image)]
            return _normalised(output.embedding), None
        requests = [InferenceRequest("recognizer", picture.warp(arcface_matrix(landmarks, ALIGNED_SIDE), ALIGNED_SIDE))]
        if "ifqa" in self._context.evaluator.names:
            requests.append(InferenceRequest("ifqa", picture.warp(ffhq_matrix(landmarks, IFQA_SIDE), IFQA_SIDE)))
        recognised, *ranked = yield requests
        return _normalised(recognised.embedding), float(ranked[0].score) if ranked else None

    def _alike(self, lossless: tuple[Array, float | None], coded: tuple[Array, float | None]) -> bool:
        if 1.0 - float(lossless[0] @ coded[0]) > self._output.auto_embedding:
            return False
        # Only a lower score counts: light compression removes noise, which raises the score and is harmless.
        return lossless[1] is None or coded[1] is None or lossless[1] - coded[1] <= self._output.auto_ifqa


def needs_finalizing(config: Config) -> bool:
    """Whether a `CropFinalizer` is needed for this configuration."""
    return config.output.format != "png" or bool({"loose", "frame"} & set(config.output.crops))


def loose_box(face: Face, margin: float, width: int, height: int) -> tuple[int, int, int, int]:
    """The square around a face's box, in whole pixels; each side has a margin of `margin` times the box's longer side.

    It is clipped at the edges of the `width` x `height` frame, so it may not be square there.
    """
    x1, y1, x2, y2 = (float(value) for value in face.box)
    half = (0.5 + margin) * max(x2 - x1, y2 - y1)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    left, top = max(0, math.floor(x - half)), max(0, math.floor(y - half))
    right, bottom = min(width, math.ceil(x + half)), min(height, math.ceil(y + half))
    # For a box outside the frame, one pixel is kept, so that there is a picture.
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _landmarks_in(shot: BestShot, name: str) -> Array:
    """Positions of a shot's landmarks in the picture called `name`, float64 (5, 2)."""
    points = np.asarray(shot.face.landmarks, np.float64)
    if name == "ffhq":
        matrix = ffhq_matrix(points, shot.image.shape[0])
        return points @ matrix[:, :2].T + matrix[:, 2]
    box = shot.crops[name].box
    return points if box is None else points - box[:2]


def _normalised(embedding: Array) -> Array:
    length = float(np.linalg.norm(embedding))
    return embedding / length if length > 0 else embedding


def _encoded(shot: BestShot, encodings: dict[str, Encoding]) -> BestShot:
    crops = {name: replace(crop, encoding=encodings[name]) for name, crop in shot.crops.items()}
    return replace(shot, encoding=encodings["ffhq"], crops=crops)
