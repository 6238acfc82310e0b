"""Two crops of one face from one frame, as after two slightly different detections; their scores must be the same."""

from __future__ import annotations

import math

import cv2
import numpy as np

from models.common.degrade import Degradation, draw_single
from models.common.severity import geometric
from streamgate.sources.resample import sample

SHIFT_SHARE = 0.01
"""Standard deviation of the shift, as a share of the distance between the eyes (which is a quarter of the side)."""
ZOOM, TURN_DEGREES = 0.01, 0.5
SMALLEST, LARGEST = 72, 400
"""Smallest and largest side of the face square in the frame, in pixels."""
KINDS = {"jpeg": 0.3, "footage": 0.35, "noise": 0.15, "blur": 0.2}


def draw_frame(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The face as it may look in a frame, uint8 [side, side, 3]: of random size, and in two of three cases compressed,
    noisy or blurred.
    """
    picture = np.asarray(face)
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    side = round(geometric(SMALLEST, LARGEST, float(rng.random())))
    small = cv2.resize(np.ascontiguousarray(picture), (side, side), interpolation=cv2.INTER_AREA)
    if rng.random() < 2 / 3:
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        drawn: Degradation = draw_single(rng, kind)
        small = drawn.apply(small, float(rng.uniform(0.0, 0.5)))
    return small


def cut(frame: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """The whole frame, resampled as in the gate with a small random shift, rotation and zoom: uint8 [side, side, 3]."""
    scale = frame.shape[0] / side * math.exp(rng.normal(0.0, ZOOM))
    turn = math.radians(rng.normal(0.0, TURN_DEGREES))
    shift = rng.normal(0.0, SHIFT_SHARE * frame.shape[0] / 4, 2)
    linear = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    middle = np.full(2, (frame.shape[0] - 1) / 2)
    offset = middle + shift - linear @ np.full(2, (side - 1) / 2)
    return np.asarray(sample(frame, np.column_stack([linear, offset]), (side, side), cv2.INTER_CUBIC))


def draw_twins(face: np.ndarray, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two crops uint8 [side, side, 3] of one face from one frame."""
    frame = draw_frame(face, rng)
    return cut(frame, side, rng), cut(frame, side, rng)
