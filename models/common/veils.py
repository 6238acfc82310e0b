"""Veils over a bad picture that make the picture look detailed again: grain, dither, sharpening, compression.

A `Veil` is drawn once and then applied to every picture of a series, so that the pictures still differ only in their
degradation. If a veil raises a score, it has fooled the score. Pictures are uint8 [H, W, 3] RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from models.common.images import decode_rgb, encode_jpeg
from models.common.severity import Picture, geometric


def grain(picture: Picture, t: float, shape: float, seed: int) -> Picture:
    """Noise of 1.5..14 levels: white, only in luma, wider than a pixel, or stronger in the shadows."""
    sigma = geometric(1.5, 14.0, t)
    channels = 1 if shape < 0.5 else 3
    field = np.random.default_rng(seed).standard_normal((*picture.shape[:2], channels), dtype=np.float32)
    if shape % 0.25 > 0.15:
        field = cv2.GaussianBlur(field, (0, 0), 0.4 + 2 * (shape % 0.25)).reshape(*picture.shape[:2], channels)
        field /= max(float(field.std()), 1e-6)
    values = picture.astype(np.float32)
    if 0.25 <= shape < 0.5:
        field = field * (1.3 - values.mean(axis=2, keepdims=True) / 255)
    return np.clip(values + sigma * field + 0.5, 0, 255).astype(np.uint8)


def coded_grain(picture: Picture, t: float, shape: float, seed: int) -> Picture:
    """Grain that was encoded with the picture: JPEG of quality 40..88, or WebP of quality 30..80."""
    grainy = grain(picture, 0.3 + 0.7 * t, shape, seed)
    return _jpeg(grainy, 40 + seed % 49) if seed // 64 % 3 else _webp(grainy, 30 + seed % 51)


def colour_noise(picture: Picture, t: float, shape: float, seed: int) -> Picture:
    """Blotches of colour, 2..18 levels in both colour differences, 0.6..2.5 px wide; luma stays."""
    field = np.random.default_rng(seed).standard_normal((*picture.shape[:2], 2), dtype=np.float32)
    field = cv2.GaussianBlur(field, (0, 0), 0.6 + 1.9 * shape)
    field *= geometric(2.0, 18.0, t) / max(float(field.std()), 1e-6)
    apart = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)
    apart[..., 1:] = np.clip(apart[..., 1:] + field + 0.5, 0, 255).astype(np.uint8)
    return cv2.cvtColor(apart, cv2.COLOR_YCrCb2RGB)


def ordered_dither(picture: Picture, t: float, shape: float, seed: int) -> Picture:
    """Ordered dither to 24..4 levels per channel, with a Bayer matrix of side 2, 4 or 8."""
    levels = round(geometric(24, 4, t))
    side = (2, 4, 8)[min(2, int(shape * 3))]
    tiles = (-(-picture.shape[0] // side), -(-picture.shape[1] // side))
    threshold = np.tile(bayer_matrix(side), tiles)[: picture.shape[0], : picture.shape[1], None]
    step = 255.0 / (levels - 1)
    return np.clip(np.floor(picture / step + threshold) * step + 0.5, 0, 255).astype(np.uint8)


def bayer_matrix(side: int) -> np.ndarray:
    """Thresholds [side, side] in 0..1 for ordered dither; side is a power of two."""
    matrix = np.zeros((1, 1))
    while len(matrix) < side:
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return ((matrix + 0.5) / matrix.size).astype(np.float32)


def error_diffusion(picture: Picture, t: float, shape: float, seed: int) -> Picture:
    """Floyd-Steinberg dither to 256..12 colours: a palette made for the picture (GIF), or a fixed colour cube."""
    image = Image.fromarray(picture)
    if shape < 0.75:
        # With an octree palette, the dither is coarse; with a median cut, it is fine and looks like skin texture.
        method = Image.Quantize.FASTOCTREE if shape < 0.25 else Image.Quantize.MEDIANCUT
        # A median cut of all pixels would take most of the time of a batch; one in nine is enough.
        seen = image if shape < 0.25 else Image.fromarray(np.ascontiguousarray(picture[seed % 3 :: 3, ::3]))
        palette = seen.quantize(round(geometric(256, 12, t)), method=method)
    else:
        steps = np.linspace(0, 255, round(geometric(6, 2.6, t))).astype(np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
        palette = Image.new("P", (1, 1))
        palette.putpalette(np.pad(cube, ((0, 256 - len(cube)), (0, 0)), mode="edge").tobytes())
    return np.asarray(image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB"))


def sharpened(picture: Picture, t: float, shape: float, seed: int) -> Picture:
    """Unsharp mask, amount 0.4..4 at radius 0.6..2.4 px."""
    amount = geometric(0.4, 4.0, t)
    return cv2.addWeighted(picture, 1 + amount, cv2.GaussianBlur(picture, (0, 0), 0.6 + 1.8 * shape), -amount, 0)


def upscaled(picture: Picture, t: float, shape: float, seed: int) -> Picture:
    """Scale the picture down by 1.2..3 and up with a sharp kernel (Lanczos or cubic), then sharpen it slightly."""
    height, width = picture.shape[:2]
    factor = geometric(1.2, 3.0, t)
    small = cv2.resize(picture, (round(width / factor), round(height / factor)), interpolation=cv2.INTER_AREA)
    big = cv2.resize(small, (width, height), interpolation=(cv2.INTER_LANCZOS4, cv2.INTER_CUBIC)[seed % 2])
    return sharpened(big, 0.5 * shape, 0.3, seed)


def recompressed(picture: Picture, t: float, shape: float, seed: int) -> Picture:
    """JPEG of quality 92..25, encoded once or twice (with the second block grid shifted), or WebP."""
    quality = round(geometric(92, 25, t))
    if shape < 0.2:
        return _webp(picture, quality)
    coded = _jpeg(picture, quality)
    if shape < 0.6:
        return coded
    moved = np.roll(coded, (seed % 7 + 1, seed // 7 % 7 + 1), (0, 1))
    return np.roll(_jpeg(moved, 60 + seed % 30), (-(seed % 7) - 1, -(seed // 7 % 7) - 1), (0, 1))


def vignette(picture: Picture, t: float, shape: float, seed: int) -> Picture:
    """Corners darker by 10..85 %."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = np.hypot(x / width - 0.5, y / height - 0.5) / 0.7072
    fall = 1 - geometric(0.1, 0.85, t) * distance ** (1.5 + 2 * shape)
    return np.clip(picture * fall[..., None] + 0.5, 0, 255).astype(np.uint8)


def _jpeg(picture: Picture, quality: int) -> Picture:
    coded = decode_rgb(encode_jpeg(picture, quality))
    assert coded is not None
    return coded


def _webp(picture: Picture, quality: int) -> Picture:
    _, data = cv2.imencode(".webp", picture[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    coded = decode_rgb(data.tobytes())
    assert coded is not None
    return coded


VEILS: dict[str, Callable[[Picture, float, float, int], Picture]] = {
    "grain": grain,
    "coded grain": coded_grain,
    "colour noise": colour_noise,
    "ordered dither": ordered_dither,
    "error diffusion": error_diffusion,
    "sharpening": sharpened,
    "sharp upscaling": upscaled,
    "recompression": recompressed,
    "vignette": vignette,
}
# Probabilities; the veils that fool a score most are drawn most often.
_SHARES = {
    "grain": 0.17,
    "coded grain": 0.08,
    "colour noise": 0.03,
    "ordered dither": 0.10,
    "error diffusion": 0.15,
    "sharpening": 0.18,
    "sharp upscaling": 0.16,
    "recompression": 0.07,
    "vignette": 0.06,
}


@dataclass(frozen=True)
class Veil:
    """A veil: its kind, strength (t in 0..1), variant and seed."""

    kind: str
    t: float
    shape: float
    seed: int

    def apply(self, picture: Picture) -> Picture:
        """The picture under this veil; the veil, including its noise, is the same for every picture."""
        return VEILS[self.kind](picture, self.t, self.shape, self.seed)


def draw_veils(rng: np.random.Generator, favoured: Sequence[str] = ()) -> list[Veil]:
    """One veil or, in three of ten cases, two veils, one over the other.

    favoured: kinds of veils. If there are any, half of the draws are a single veil of one of these kinds, and the rule
    above applies to the other draws.
    """
    if favoured and rng.random() < 0.5:
        kinds = [favoured[int(rng.integers(len(favoured)))]]
    else:
        kinds = rng.choice(list(_SHARES), 2 if rng.random() < 0.3 else 1, replace=False, p=list(_SHARES.values()))
    return [Veil(str(k), float(rng.random()), float(rng.random()), int(rng.integers(1 << 30))) for k in kinds]


def apply_veils(veils: list[Veil], picture: Picture) -> Picture:
    """The picture under all veils; the first veil is applied first."""
    for veil in veils:
        picture = veil.apply(picture)
    return picture


def mild_grain(picture: Picture, rng: np.random.Generator) -> Picture:
    """Grain of 1.5..3.5 levels, white or only in luma, as from a good camera; a good score should tolerate it."""
    sigma = float(rng.uniform(1.5, 3.5))
    field = rng.standard_normal((*picture.shape[:2], 1 if rng.random() < 0.4 else 3), dtype=np.float32)
    return np.clip(picture + sigma * field + 0.5, 0, 255).astype(np.uint8)
