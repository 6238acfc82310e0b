"""Degradations in a camera: shake, a soft lens with a noisy sensor, and bad light.

Each is a function of a uint8 [H, W, 3] RGB picture and a severity t in 0..1; `shape` in 0..1 selects a variant,
and `seed` determines everything random, as in degrade.py.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from models.common.severity import Picture, geometric

_PATH_POINTS = 160


def motion(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """Shake along a path of 3..64 px at 256 px: straight at shape 0, with a turn of up to 3 radians at shape 1."""
    length = geometric(3.0, 64.0, t) * picture.shape[1] / 256
    return cv2.filter2D(picture, -1, _path_kernel(length, shape, seed), borderType=cv2.BORDER_REFLECT_101)


def _path_kernel(length: float, shape: float, seed: int) -> np.ndarray:
    """Kernel with sum 1: the path of a point while the shutter is open, weighted by the time spent at each position."""
    rng = np.random.default_rng(seed)
    along = np.linspace(-0.5, 0.5, _PATH_POINTS)
    bend = 3.0 * shape * (1 if rng.random() < 0.5 else -1)
    sway = 0.6 * shape * np.sin(2 * math.pi * (along * rng.uniform(0.5, 1.5) + rng.random()))
    heading = rng.uniform(0, math.pi) + bend * along + sway
    steps = np.column_stack([np.cos(heading), np.sin(heading)]) * (length / _PATH_POINTS)
    path = np.cumsum(steps, axis=0)
    # The path is centred on its mean, so that a longer exposure does not also move the face.
    path -= path.mean(axis=0)
    dwell = np.exp(rng.uniform(0, 0.8) * np.cos(math.pi * along * rng.uniform(0.5, 2)))
    radius = math.ceil(float(np.abs(path).max())) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    corner = np.floor(path).astype(int)
    part = path - corner
    for dx in (0, 1):
        for dy in (0, 1):
            weight = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1]) * dwell
            np.add.at(kernel, (corner[:, 1] + dy + radius, corner[:, 0] + dx + radius), weight)
    return kernel / kernel.sum()


def sensor(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """Defocus of 0.6..6 px at 256 px, then sensor noise that is the same for every t, then demosaicing.

    Only the blur grows with t; the noise on top of it (2 levels at shape 0 to 14 at shape 1, more in bright parts) does
    not change. Half of the variants are sharpened at the end.
    """
    soft = cv2.GaussianBlur(picture, (0, 0), geometric(0.6, 6.0, t) * picture.shape[1] / 256)
    values = soft.astype(np.float32)
    grain = np.random.default_rng(seed).standard_normal(picture.shape, dtype=np.float32)
    noisy = values + geometric(2.0, 14.0, shape) * grain * np.sqrt(0.3 + 1.4 * values / 255)
    mosaic = bayer(np.clip(noisy + 0.5, 0, 255).astype(np.uint8))
    code = (cv2.COLOR_BayerRGGB2RGB, cv2.COLOR_BayerRGGB2RGB_EA)[seed // 2 % 2]
    out = cv2.demosaicing(mosaic, code)
    if seed % 2:
        out = cv2.addWeighted(out, 1.8, cv2.GaussianBlur(out, (0, 0), 1.0), -0.8, 0)
    return out


def bayer(picture: Picture) -> np.ndarray:
    """uint8 [H, W]: for each position of an RGGB sensor, the value of the colour that this position measures."""
    mosaic = picture[..., 1].copy()
    mosaic[0::2, 0::2] = picture[0::2, 0::2, 0]
    mosaic[1::2, 1::2] = picture[1::2, 1::2, 2]
    return mosaic


def light(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """Too dark, too bright, flat, hazy, or lit from behind (see `light_kind`): barely visible at 0, ruined at 1."""
    match light_kind(shape):
        case "dark":
            return _curve(picture, geometric(1.3, 4.0, t), 1.0 if seed % 2 else geometric(0.95, 0.45, t))
        case "bright":
            return _curve(picture, geometric(1 / 1.3, 1 / 4.0, t), 1.0 if seed % 2 else geometric(1.05, 1.6, t))
        case "contrast":
            middle = 90.0 + seed % 80
            return cv2.convertScaleAbs(picture, alpha=(share := geometric(0.8, 0.12, t)), beta=middle * (1 - share))
        case "haze":
            share = geometric(0.12, 0.85, t)
            air = np.array([205.0, 210.0, 220.0]) + seed % 30
            return np.clip(picture * (1 - share) + air * share + 0.5, 0, 255).astype(np.uint8)
    return _backlight(picture, t)


def light_kind(shape: float) -> str:
    """The kind of bad light for a shape in 0..1: dark, bright, contrast, haze or backlight."""
    return ("dark", "bright", "contrast", "haze", "backlight")[min(4, int(shape * 5))]


def _curve(picture: Picture, gamma: float, gain: float) -> Picture:
    levels = gain * (np.arange(256) / 255.0) ** gamma * 255
    return cv2.LUT(picture, np.clip(np.round(levels), 0, 255).astype(np.uint8))


def _backlight(picture: Picture, t: float) -> Picture:
    """A face in shadow in front of a bright background, with a veil of light over both."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = np.hypot((x / width - 0.5) / 0.42, (y / height - 0.56) / 0.5)
    outside = (1 / (1 + np.exp((1 - distance) * 9)))[..., None]
    gain = (1 - outside) * geometric(0.8, 0.2, t) + outside * geometric(1.1, 2.0, t)
    veil = geometric(4.0, 50.0, t)
    return np.clip(picture * gain + veil * (0.5 + outside) + 0.5, 0, 255).astype(np.uint8)
