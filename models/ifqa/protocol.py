"""The pictures for the evaluation: fixed strengths in physical units, independent of the random draws of training.

All functions take and return pictures uint8 [256, 256, 3] RGB, FFHQ-aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from models.common.images import decode_rgb, encode_jpeg
from models.common.regions import REGIONS, blend, region_mask
from models.common.video import h264

Picture = np.ndarray
LEVELS = 6
SIGMAS = (0.8, 1.4, 2.2, 3.2, 4.6, 6.5)  # pixels
NOISE = (4, 8, 14, 22, 34, 50)  # standard deviation in levels of 255
FACTORS = (1.5, 2, 3, 4, 6, 8)
QUALITIES = (80, 60, 42, 28, 17, 9)
MIXTURES = (
    (0.5, 1.25, 2, 85),
    (0.8, 1.5, 4, 70),
    (1.2, 2, 7, 55),
    (1.8, 2.6, 11, 42),
    (2.5, 3.5, 16, 30),
    (3.5, 5, 24, 20),
)
FOOTAGE_HEIGHTS = (1080, 720, 480, 360)


def blur(face: Picture, sigma: float) -> Picture:
    """Gaussian blur."""
    return cv2.GaussianBlur(face, (0, 0), sigma)


def lowres(face: Picture, factor: float) -> Picture:
    """Scaled down by area, and up again by cubic interpolation."""
    side = round(face.shape[0] / factor)
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, face.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def noise(face: Picture, deviation: float, seed: int) -> Picture:
    """With white Gaussian noise, drawn separately for each channel."""
    grain = np.random.default_rng(seed).normal(0, deviation, face.shape)
    return np.clip(face + grain + 0.5, 0, 255).astype(np.uint8)


def jpeg(face: Picture, quality: int) -> Picture:
    """After compression as baseline JPEG, 4:2:0."""
    coded = decode_rgb(encode_jpeg(face, quality))
    assert coded is not None
    return coded


def mixture(face: Picture, level: int, seed: int) -> Picture:
    """The paper's chain of degradations: blur, scaling down, noise, JPEG at the small size, and scaling up."""
    sigma, factor, deviation, quality = MIXTURES[level]
    side = round(face.shape[0] / factor)
    small = cv2.resize(blur(face, sigma), (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(jpeg(noise(small, deviation, seed), quality), face.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def grade(kind: str, face: Picture, level: int, seed: int) -> Picture:
    """One of the six levels (0 the mildest) of a kind; `seed` identifies the face."""
    match kind:
        case "blur":
            return blur(face, SIGMAS[level])
        case "noise":
            return noise(face, NOISE[level], seed * LEVELS + level)
        case "low resolution":
            return lowres(face, FACTORS[level])
        case "JPEG":
            return jpeg(face, QUALITIES[level])
        case "mixture":
            return mixture(face, level, seed * LEVELS + level)
    raise ValueError(f"no such kind: {kind}")


KINDS = ("blur", "noise", "low resolution", "JPEG", "mixture")


def local(kind: str, region: str, face: Picture, seed: int) -> Picture:
    """With a single degraded region, at the fourth level of a kind; the region's edge is 2 px soft."""
    return blend(face, grade(kind, face, 3, seed), region_mask(region, face.shape[0], feather=2.0))


LOCAL_KINDS = ("blur", "noise", "JPEG", "mixture")
LOCAL_REGIONS = tuple(REGIONS)


def nlm(strength: float) -> Callable[[Picture], Picture]:
    """Non-local means, 7x7 patches in a 21x21 window."""
    return lambda face: cv2.fastNlMeansDenoisingColored(face, None, strength, strength, 7, 21)


def bilateral(colour: float, space: float) -> Callable[[Picture], Picture]:
    """Bilateral filter of diameter 9."""
    return lambda face: cv2.bilateralFilter(face, 9, colour, space)


def sharpened(amount: float, sigma: float) -> Callable[[Picture], Picture]:
    """Unsharp mask."""
    return lambda face: cv2.addWeighted(face, 1 + amount, cv2.GaussianBlur(face, (0, 0), sigma), -amount, 0)


RETOUCHES: dict[str, Callable[[Picture], Picture]] = {
    "NLM h=5": nlm(5),
    "NLM h=10": nlm(10),
    "bilateral 30/3": bilateral(30, 3),
    "bilateral 75/5": bilateral(75, 5),
    "over-sharpened 1.5 at 1.2 px": sharpened(1.5, 1.2),
    "over-sharpened 3 at 1 px": sharpened(3.0, 1.0),
}


def footage(faces: Sequence[Picture], crf: int = 23, frames: int = 6) -> dict[int, list[Picture]]:
    """Each face as it looks in H.264 footage with 1080, 720, 480 and 360 lines, by number of lines.

    Up to 28 faces are put side by side on a picture of 1920 x 1080 px, which moves by one pixel per frame. The film is
    scaled down, encoded, decoded and scaled back to 1080 lines, and the faces are cropped from its last frame.
    """
    out: dict[int, list[Picture]] = {height: [] for height in FOOTAGE_HEIGHTS}
    side, columns, rows = faces[0].shape[0], 1920 // faces[0].shape[1], 1080 // faces[0].shape[0]
    for start in range(0, len(faces), columns * rows):
        some = faces[start : start + columns * rows]
        canvas = np.full((1080 + frames, 1920 + frames, 3), 128, np.uint8)
        corners = [(i // columns * side, i % columns * side) for i in range(len(some))]
        for face, (y, x) in zip(some, corners, strict=True):
            canvas[y + frames : y + frames + side, x + frames : x + frames + side] = face
        film = [canvas[f : f + 1080, f : f + 1920] for f in range(1, frames + 1)]
        for height in FOOTAGE_HEIGHTS:
            size = (round(1920 * height / 1080 / 2) * 2, height)
            small = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) if height < 1080 else f for f in film]
            last = h264(small, crf, "medium")[-1]
            big = cv2.resize(last, (1920, 1080), interpolation=cv2.INTER_CUBIC) if height < 1080 else last
            out[height] += [np.ascontiguousarray(big[y : y + side, x : x + side]) for y, x in corners]
    return out
