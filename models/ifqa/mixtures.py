"""The degradations A of the evaluation, and the veils B that are applied after them, in physical units. They are
independent of those in training.

All functions take and return pictures uint8 [256, 256, 3] RGB, FFHQ-aligned; `seed` identifies the face.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from models.common import camera, smoothing
from models.common.veils import bayer_matrix
from models.common.video import h264, hevc
from models.ifqa import protocol
from models.ifqa.protocol import Picture

LEVELS = 6
PATHS = (5, 9, 15, 23, 35, 50)
"""Lengths of camera shake along a curve, in pixels."""
CRFS = (24, 28, 32, 36, 40, 44)
SHARES = (0.3, 0.45, 0.6, 0.75, 0.9, 1.0)
"""Shares of the middle frequencies that are removed."""
SPREADS = (6, 9, 13, 19, 28, 40)
"""Ranges of the guided filter, in levels of 255."""
GAMMAS = (1.4, 1.7, 2.1, 2.6, 3.2, 4.0)
FLATNESS = (0.75, 0.6, 0.47, 0.36, 0.26, 0.18)
"""Remaining share of the contrast."""
VEILING = (0.2, 0.3, 0.42, 0.55, 0.68, 0.8)
"""Share of haze."""
CHANGES: dict[str, Callable[[Picture, int, int], Picture]] = {
    "blur": lambda face, level, seed: protocol.blur(face, protocol.SIGMAS[level]),
    "curved motion": lambda face, level, seed: moved(face, PATHS[level], seed),
    "blur, then sensor": lambda face, level, seed: sensed(face, protocol.SIGMAS[level], seed),
    "low resolution": lambda face, level, seed: protocol.lowres(face, protocol.FACTORS[level]),
    "noise": lambda face, level, seed: protocol.noise(face, protocol.NOISE[level], seed),
    "JPEG": lambda face, level, seed: protocol.jpeg(face, protocol.QUALITIES[level]),
    "H.264": lambda face, level, seed: h264([face], CRFS[level], "medium")[0],
    "HEVC": lambda face, level, seed: hevc([face], CRFS[level], "fast")[0],
    "guided smoothing": lambda face, level, seed: smoothing.guided(face, 5, SPREADS[level]),
    "frequency separation": lambda face, level, seed: smoothing.frequency_separation(face, 1.2, 6.0, SHARES[level]),
}
LIGHTS: dict[str, Callable[[Picture, int], Picture]] = {
    "dark gamma": lambda face, level: curved(face, GAMMAS[level]),
    "bright gamma": lambda face, level: curved(face, 1 / GAMMAS[level]),
    "low contrast": lambda face, level: cv2.convertScaleAbs(
        face, alpha=FLATNESS[level], beta=128 * (1 - FLATNESS[level])
    ),
    "haze": lambda face, level: cv2.convertScaleAbs(face, alpha=1 - VEILING[level], beta=225 * VEILING[level]),
    "backlight": lambda face, level: camera.light(face, (level + 1) / LEVELS, 0.9),
}


def moved(face: Picture, length: float, seed: int) -> Picture:
    """Blurred by camera shake along a curve of this length in pixels; each face has another curve."""
    return camera.motion(face, math.log(length / 3) / math.log(64 / 3), 0.35 + 0.6 * (seed % 8) / 7, 9000 + seed)


def sensed(face: Picture, sigma: float, seed: int) -> Picture:
    """Out of focus, then noise of 5 levels, then demosaicing (VNG, which training does not use)."""
    noisy = protocol.noise(protocol.blur(face, sigma), 5, 7000 + seed)
    return cv2.demosaicing(camera.bayer(noisy), cv2.COLOR_BayerRGGB2RGB_VNG)


def curved(face: Picture, gamma: float) -> Picture:
    """After a gamma curve: above 1 darker, below 1 brighter."""
    return cv2.LUT(face, np.round((np.arange(256) / 255) ** gamma * 255).astype(np.uint8))


def grained(face: Picture, deviation: float, seed: int) -> Picture:
    """With grain that is the same in all channels (luma only)."""
    field = np.random.default_rng(5000 + seed).normal(0, deviation, (*face.shape[:2], 1))
    return np.clip(face + field + 0.5, 0, 255).astype(np.uint8)


def gif(face: Picture, colours: int) -> Picture:
    """As a GIF stores it: with a palette of its own colours and Floyd-Steinberg dither."""
    image = Image.fromarray(face)
    palette = image.quantize(colours, method=Image.Quantize.MEDIANCUT)
    return np.asarray(image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB"))


def ordered(face: Picture, levels: int) -> Picture:
    """Reduced to this number of levels per channel, with ordered dither by a 4 x 4 Bayer matrix."""
    step = 255 / (levels - 1)
    threshold = np.tile(bayer_matrix(4), (face.shape[0] // 4, face.shape[1] // 4))[..., None]
    return np.clip(np.floor(face / step + threshold) * step, 0, 255).astype(np.uint8)


def upscaled(face: Picture, factor: float) -> Picture:
    """Scaled down by the factor, scaled up again by Lanczos interpolation, and sharpened."""
    side = round(face.shape[0] / factor)
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return protocol.sharpened(0.8, 1.0)(cv2.resize(small, face.shape[1::-1], interpolation=cv2.INTER_LANCZOS4))


def vignetted(face: Picture, share: float) -> Picture:
    """With the corners darkened by this share."""
    y, x = np.mgrid[0 : face.shape[0], 0 : face.shape[1]] / face.shape[0] - 0.5
    return np.clip(face * (1 - share * 2 * (x * x + y * y))[..., None] + 0.5, 0, 255).astype(np.uint8)


def blotched(face: Picture, deviation: float, seed: int) -> Picture:
    """With noise in both colour differences, blurred by 1.2 px."""
    field = np.random.default_rng(6000 + seed).normal(0, 1, (*face.shape[:2], 2))
    field = cv2.GaussianBlur(field, (0, 0), 1.2)
    apart = cv2.cvtColor(face, cv2.COLOR_RGB2YCrCb)
    apart[..., 1:] = np.clip(apart[..., 1:] + deviation * field / field.std() + 0.5, 0, 255).astype(np.uint8)
    return cv2.cvtColor(apart, cv2.COLOR_YCrCb2RGB)


VEILS: dict[str, Callable[[Picture, int], Picture]] = {
    "grain 5": lambda face, seed: grained(face, 5, seed),
    "grain 8, then JPEG 70": lambda face, seed: protocol.jpeg(grained(face, 8, seed), 70),
    "JPEG 60, then grain 6": lambda face, seed: grained(protocol.jpeg(face, 60), 6, seed),
    "colour noise 8": lambda face, seed: blotched(face, 8, seed),
    "ordered dither, 8 levels": lambda face, seed: ordered(face, 8),
    "GIF of 64 colours": lambda face, seed: gif(face, 64),
    "GIF of 256 colours": lambda face, seed: gif(face, 256),
    "sharpened 1.5 at 1.2 px": lambda face, seed: protocol.sharpened(1.5, 1.2)(face),
    "grain 4, sharpened 1 at 1 px": lambda face, seed: protocol.sharpened(1.0, 1.0)(grained(face, 4, seed)),
    "upscaled by 2, Lanczos": lambda face, seed: upscaled(face, 2),
    "JPEG 50": lambda face, seed: protocol.jpeg(face, 50),
    "vignette 60 %": lambda face, seed: vignetted(face, 0.6),
}
MILD_GRAIN = 3.0
"""Standard deviation of grain that hardly lowers the score of a clean face."""
