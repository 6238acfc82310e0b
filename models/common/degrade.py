"""Degradations of face pictures, each a function of one severity.

Pictures are uint8 [H, W, 3] RGB. A `Degradation` is drawn once (its kind and its random shape) and can then be applied
at any severity t in 0..1, so that the pictures of a graded series differ only in strength. Physical strengths are
geometric in t, because equal steps of t then look about equally large.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from models.common import camera, smoothing
from models.common.images import decode_rgb, encode_jpeg
from models.common.severity import Picture, geometric
from models.common.video import h264, hevc

# --- one function per kind; `shape` in 0..1 selects a variant, `seed` determines the noise ---


def blur(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """Blur with a standard deviation of 0.5..7 px at 256 px: Gaussian, oblong Gaussian, defocus disk or motion."""
    sigma = geometric(0.5, 7.0, t) * picture.shape[1] / 256
    if shape < 0.6:
        return cv2.GaussianBlur(picture, (0, 0), sigma)
    radius = max(1, math.ceil(3 * sigma))
    grid = np.arange(-radius, radius + 1, dtype=np.float32)
    x, y = np.meshgrid(grid, grid)
    angle = (seed % 180) * math.pi / 180
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    if shape < 0.75:
        kernel = np.exp(-0.5 * ((along / sigma) ** 2 + (across / (0.45 * sigma)) ** 2))
    elif shape < 0.88:
        # A disk of radius r has the standard deviation r / 2 along each axis.
        kernel = np.clip(2 * sigma + 0.5 - np.hypot(x, y), 0, 1)
    else:
        # A line of length L has the standard deviation L / sqrt(12).
        kernel = np.clip(math.sqrt(3) * sigma + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
    return cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


ROUND_FACTORS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_LEAST_FACTOR, _MOST_FACTOR = 1.2, 10.0
_SMALL_SHARE = 0.8
"""Factor on the severity of scaling down in chains that continue at the small size, because enlarging the picture also
enlarges their noise and blocks."""


def lowres(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """Scale the picture down by 1.2..10 and up to its size again, with the filters that cameras and players use."""
    return enlarge(shrink(picture, t, shape, seed), picture.shape, seed)


def shrink(picture: Picture, t: float, shape: float, seed: int) -> Picture:
    """Scale the picture down by 1.2..10; half of the variants use the nearest round factor, as real footage does."""
    height, width = picture.shape[:2]
    factor = geometric(_LEAST_FACTOR, _MOST_FACTOR, t)
    if _is_round(seed):
        factor = min(ROUND_FACTORS, key=lambda round_: abs(round_ - factor))
    small = (max(8, round(width / factor)), max(8, round(height / factor)))
    down = cv2.INTER_AREA if shape < 0.7 else cv2.INTER_LINEAR
    return cv2.resize(picture, small, interpolation=down)


def _is_round(seed: int) -> bool:
    """Whether the variant `seed` of low resolution uses only round factors."""
    return bool(seed % 2)


def enlarge(picture: Picture, shape: tuple[int, ...], seed: int) -> Picture:
    """Scale the picture up to the height and width of `shape`: cubic, linear or Lanczos."""
    up = (cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_LANCZOS4)[seed // 3 % 3]
    return cv2.resize(picture, (shape[1], shape[0]), interpolation=up)


def noise(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """Noise with a standard deviation of 2..60 levels: white per channel, white in luma, signal-dependent, or grain."""
    sigma = geometric(2.0, 60.0, t)
    height, width = picture.shape[:2]
    channels = 1 if 0.5 <= shape < 0.65 else 3
    field_ = np.random.default_rng(seed).standard_normal((height, width, channels), dtype=np.float32)
    if shape >= 0.85:
        # Grain wider than a pixel looks like noise after demosaicing or resizing.
        grain = cv2.GaussianBlur(field_, (0, 0), 0.5 + (shape - 0.85) * 4).reshape(height, width, -1)
        field_ = grain / max(float(grain.std()), 1e-6)
    values = picture.astype(np.float32)
    if 0.65 <= shape < 0.85:
        field_ = field_ * np.sqrt(0.25 + 1.5 * values / 255)
    return np.clip(values + sigma * field_ + 0.5, 0, 255).astype(np.uint8)


def jpeg(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """JPEG of quality 90..6 (4:2:0; a quarter of the variants 4:4:4), with the block grid at a random offset."""
    quality = round(geometric(90.0, 6.0, t))
    dx, dy = (seed % 8, seed // 8 % 8) if shape < 0.5 else (0, 0)
    padded = cv2.copyMakeBorder(picture, dy, 0, dx, 0, cv2.BORDER_REFLECT_101) if dx or dy else picture
    coded = decode_rgb(encode_jpeg(padded, quality, chroma_444=shape > 0.75))
    assert coded is not None
    return np.ascontiguousarray(coded[dy:, dx:])


def footage(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """Scale the picture down by 1..3.2, encode it as H.264 (CRF 20..36) and scale it up, as in smaller footage."""
    height, width = picture.shape[:2]
    factor = geometric(1.0, 3.2, min(1.0, t * (0.6 + 0.8 * shape)))
    small = (round(width / factor) // 2 * 2, round(height / factor) // 2 * 2)
    tiny = cv2.resize(picture, small, interpolation=cv2.INTER_AREA) if factor > 1 else picture
    coded = h264([tiny], crf=round(20 + 16 * t))[0]
    up = (cv2.INTER_CUBIC, cv2.INTER_LINEAR)[seed % 2]
    return cv2.resize(coded, (width, height), interpolation=up) if factor > 1 else coded


def codec(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """A single H.264 (three quarters of the variants) or HEVC frame, CRF 20..46."""
    encode = h264 if shape < 0.75 else hevc
    return encode([picture], crf=round(20 + 26 * t), preset="veryfast")[0]


def denoise(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """Smoothing that preserves edges: bilateral, median or non-local means; skin then looks like plastic."""
    if shape < 0.5:
        diameter = 5 + 2 * (seed % 3)
        return cv2.bilateralFilter(picture, diameter, geometric(12, 120, t), geometric(1.5, 6, t))
    if shape < 0.65:
        return cv2.medianBlur(picture, 3 if t < 0.4 else 5 if t < 0.8 else 7)
    strength = geometric(2.5, 18, t)
    search = 9 + 4 * (seed % 2)
    return cv2.fastNlMeansDenoisingColored(picture, None, strength, strength, 3 + 2 * (seed // 2 % 2), search)


def sharpen(picture: Picture, t: float, shape: float = 0.0, seed: int = 0) -> Picture:
    """Unsharp mask with an amount of 0.4..4 and a radius of 0.6..2.2 px, which adds halos and amplifies noise."""
    sigma = 0.6 + 1.6 * shape
    amount = geometric(0.4, 4.0, t)
    return cv2.addWeighted(picture, 1 + amount, cv2.GaussianBlur(picture, (0, 0), sigma), -amount, 0)


Kind = Callable[[Picture, float, float, int], Picture]
KINDS: dict[str, Kind] = {
    "blur": blur,
    "lowres": lowres,
    "noise": noise,
    "jpeg": jpeg,
    "footage": footage,
    "codec": codec,
    "denoise": denoise,
    "sharpen": sharpen,
    "motion": camera.motion,
    "sensor": camera.sensor,
    "light": camera.light,
    "smooth": smoothing.smooth,
}


@dataclass(frozen=True)
class Step:
    """One degradation of a chain: kind, variant, seed, and the step's share of the chain's severity."""

    kind: str
    shape: float
    seed: int
    share: float = 1.0


@dataclass(frozen=True)
class Degradation:
    """A chain of steps, applied in order; `kind` names it in logs.

    at_small_size: the steps after the first low-resolution step are applied to the small picture, which is scaled up
    only at the end, because a small camera picture is also noisy and encoded before it is enlarged.
    """

    kind: str
    steps: tuple[Step, ...] = field(default_factory=tuple)
    at_small_size: bool = False

    @property
    def strength(self) -> float:
        """Severity of the whole chain at t = 1: 1 for one full step, more if several steps add up."""
        return math.sqrt(sum(step.share**2 for step in self.steps))

    def round_severities(self) -> list[float]:
        """Ascending severities at which the picture is scaled by a round factor; empty if there are none.

        Scaling by exactly 2 or 4 leaves a regular pattern in the pixels, so a network may rate it as worse than scaling
        by 3. A series must contain several round factors, so that the network learns their order.
        """
        step = next((s for s in self.steps if s.kind == "lowres"), None)
        if step is None or not _is_round(step.seed):
            return []
        share = step.share * (_SMALL_SHARE if self.at_small_size else 1.0)
        span = math.log(_MOST_FACTOR / _LEAST_FACTOR)
        severities = [math.log(factor / _LEAST_FACTOR) / span / share for factor in ROUND_FACTORS]
        return [t for t in severities if t <= 1]

    def apply(self, picture: Picture, t: float) -> Picture:
        """The picture at severity t (0..1); the severity of each step is t times the step's share."""
        shape, shrunk = picture.shape, None
        for step in self.steps:
            own = min(1.0, t * step.share)
            if self.at_small_size and step.kind == "lowres" and shrunk is None:
                picture, shrunk = shrink(picture, _SMALL_SHARE * own, step.shape, step.seed), step
            else:
                picture = KINDS[step.kind](picture, own, step.shape, step.seed)
        return picture if shrunk is None else enlarge(picture, shape, shrunk.seed)


def draw_step(rng: np.random.Generator, kind: str, share: float = 1.0) -> Step:
    """A random variant of one kind."""
    return Step(kind, float(rng.random()), int(rng.integers(1 << 30)), share)


def draw_single(rng: np.random.Generator, kind: str) -> Degradation:
    """A degradation of one kind only."""
    return Degradation(kind, (draw_step(rng, kind),))


def draw_mixture(rng: np.random.Generator, probability: float = 0.4, minimum: int = 1) -> Degradation:
    """Blur, low resolution, noise and JPEG, each with `probability`, but at least `minimum` of them.

    Half of the chains have the order of the paper; the others are shuffled.
    """
    kinds = [k for k in ("blur", "lowres", "noise", "jpeg") if rng.random() < probability]
    while len(kinds) < minimum:
        left = [k for k in ("blur", "lowres", "noise", "jpeg", "jpeg", "noise") if k not in kinds]
        kinds.append(left[int(rng.integers(len(left)))])
    order = ["blur", "lowres", "noise", "jpeg"]
    kinds.sort(key=order.index)
    if rng.random() < 0.5:
        kinds = [kinds[i] for i in rng.permutation(len(kinds))]
    # Each step of a longer chain is milder; otherwise, chains would always ruin the picture.
    ceiling = 1.0 if len(kinds) == 1 else 0.85
    steps = tuple(draw_step(rng, k, ceiling * float(rng.uniform(0.55, 1.0))) for k in kinds)
    return Degradation("mixture" if len(steps) > 1 else steps[0].kind, steps, bool(rng.random() < 0.5))


def draw_chain(rng: np.random.Generator) -> Degradation:
    """The complete chain of the paper: blur, scaling down, then noise and JPEG on the small picture."""
    steps = tuple(draw_step(rng, k, float(rng.uniform(0.4, 0.85))) for k in ("blur", "lowres", "noise", "jpeg"))
    return Degradation("mixture", steps, at_small_size=True)


def tone(picture: Picture, rng: np.random.Generator, strength: float = 1.0, least_gamma: float = 0.0) -> Picture:
    """Random gain, gamma (at least `least_gamma`; below 1 is brighter), colour cast and saturation: exposure and skin
    tone must not influence the score.
    """
    gamma = max(least_gamma, float(np.exp(rng.normal(0, 0.22 * strength))))
    cast = np.exp(rng.normal(0, 0.06 * strength, 3))
    gain = float(np.exp(rng.normal(-0.03, 0.12 * strength)))
    levels = (np.arange(256) / 255.0)[:, None] ** gamma * (gain * cast)[None, :] * 255
    table = np.clip(np.round(levels), 0, 255).astype(np.uint8)
    toned = cv2.LUT(picture, table[None])
    saturation = float(rng.uniform(1 - 0.5 * strength, 1 + 0.25 * strength))
    if rng.random() < 0.08:
        saturation = 0.0
    return cv2.addWeighted(toned, saturation, greyscale(toned), 1 - saturation, 0)


def night(picture: Picture, rng: np.random.Generator) -> Picture:
    """Random gain below 1, and a slightly raised black level."""
    gain = float(np.exp(rng.uniform(np.log(0.18), np.log(0.6))))
    return cv2.LUT(picture, np.clip(np.arange(256) * gain + rng.uniform(0, 12), 0, 255).astype(np.uint8))


def greyscale(picture: Picture) -> Picture:
    """The picture without colours, still with three channels."""
    return cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
