"""Faces that are not photographs, made from portraits and their mesh points, for training the head `real`.

Each style receives a canvas of `models/expression/dataset.py`, uint8 [188, 172, 3] RGB, and its mesh points, [P, 2] in
pixels, in the order of `models.expression.architecture.POINTS`. It returns a new canvas of the same size. Only the
portrait and a random generator are used, so the terms of the portraits apply to the results.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from models.common.painted import draw_painting
from models.expression.covers import at
from models.expression.dataset import CANVAS

_LIDS = ([33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246],
         [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466])  # fmt: skip
_IRISES, _BROWS = (468, 473), ([70, 63, 105, 66, 107], [300, 293, 334, 296, 336])
_OUTLINE = [10, 454, 397, 377, 152, 148, 172, 234]
_OUTER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
_NOSE, _BRIDGE, _TIP = (98, 327), 6, 4
_FINER = 3
"""Cartoons are drawn at this many times their size and scaled down."""
Draw = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def painted(canvas: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The portrait turned into a painting by a filter."""
    return draw_painting(canvas, rng)


def flattened(canvas: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Areas of one colour: mean shift, a small palette, or pixel art."""
    choice = int(rng.integers(3))
    if choice == 0:
        return cv2.pyrMeanShiftFiltering(canvas, float(rng.uniform(5, 14)), float(rng.uniform(25, 60)))
    smooth = cv2.bilateralFilter(canvas, 7, float(rng.uniform(20, 60)), 4)
    if choice == 1:
        return cv2.GaussianBlur(_palette(smooth, int(rng.integers(4, 12)), rng), (0, 0), float(rng.uniform(0.3, 0.7)))
    side = int(rng.integers(32, 64))
    small = cv2.resize(smooth, (side, side * CANVAS[0] // CANVAS[1]), interpolation=cv2.INTER_AREA)
    small = _palette(small, int(rng.integers(6, 24)), rng)
    return cv2.resize(small, CANVAS[::-1], interpolation=cv2.INTER_NEAREST if rng.random() < 0.6 else cv2.INTER_CUBIC)


def _palette(picture: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    pixels = picture.reshape(-1, 3).astype(np.float32)
    some = pixels[rng.choice(len(pixels), 800)]
    cv2.setRNGSeed(int(rng.integers(1 << 30)))
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 6, 1.0)
    _, _, colours = cv2.kmeans(some, count, None, stop, 1, cv2.KMEANS_PP_CENTERS)
    nearest = ((pixels[:, None] - colours[None]) ** 2).sum(axis=2).argmin(axis=1)
    return np.round(colours[nearest]).astype(np.uint8).reshape(picture.shape)


def inked(canvas: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lines and areas of ink on paper (extended difference of Gaussians), or a halftone print."""
    luma = cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    if rng.random() < 0.65:
        fine = float(rng.uniform(0.6, 1.6))
        near, wide = cv2.GaussianBlur(luma, (0, 0), fine), cv2.GaussianBlur(luma, (0, 0), 1.6 * fine)
        sharp = (1 + 18 * rng.uniform(0.5, 1.5)) * near - 18 * wide
        level = np.quantile(sharp, rng.uniform(0.08, 0.5))
        ink = 1 / (1 + np.exp(-np.clip(float(rng.uniform(2, 12)) * (sharp - level), -30, 30)))
    else:
        y, x = np.mgrid[: CANVAS[0], : CANVAS[1]].astype(np.float32)
        angle, period = rng.uniform(0, np.pi), rng.uniform(2.5, 5)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        wave = np.sin(2 * np.pi * u / period) + (np.sin(2 * np.pi * v / period) if rng.random() < 0.6 else 0.0)
        ink = np.clip((luma - 0.5 - 0.25 * wave) * rng.uniform(2, 6) + 0.5, 0, 1)
    paper, black = 255 - np.abs(rng.normal(0, 25, 3)), np.abs(rng.normal(0, 35, 3))
    out = black + ink[..., None] * (paper - black)
    if rng.random() < 0.3:
        flat = cv2.bilateralFilter(canvas, 9, 60, 5).astype(np.float32)
        out = out * flat / 255 * 1.2
    return np.clip(out + rng.normal(0, 3, CANVAS)[..., None], 0, 255).astype(np.uint8)


def sculpted(canvas: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stone, bronze or clay: one colour, eyes without irises, and smooth light."""
    luma = cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY)
    luma = cv2.bilateralFilter(luma, 9, float(rng.uniform(25, 70)), 4).astype(np.float32)
    for lids, iris in zip(_LIDS, _IRISES, strict=True):
        shape = _filled(at(points, lids), CANVAS)
        level = float(np.median(luma[_filled(at(points, _OUTER), CANVAS) > 0.5])) if rng.random() < 0.5 else 150.0
        blank = level + 12 * np.clip((at(points, [iris])[0, 1] - np.mgrid[: CANVAS[0], : CANVAS[1]][0]) / 6, -1, 1)
        soft = cv2.GaussianBlur(shape, (0, 0), 0.7)
        luma += soft * (blank - luma)
    # Hair and skin are of the same material, so gradual changes of brightness are reduced.
    slow = cv2.GaussianBlur(luma, (0, 0), 18)
    luma = rng.uniform(90, 180) + (luma - slow) * rng.uniform(0.8, 1.3) + (slow - slow.mean()) * rng.uniform(0.2, 0.6)
    grain = cv2.GaussianBlur(rng.normal(0, 1, CANVAS).astype(np.float32), (0, 0), float(rng.uniform(0.6, 3)))
    luma += grain * rng.uniform(0, 12)
    tint = np.array([(1, 1, 1), (1.05, 1.0, 0.9), (0.95, 0.75, 0.5), (1.05, 0.8, 0.65)][int(rng.integers(4))])
    return np.clip(luma[..., None] * tint, 0, 255).astype(np.uint8)


def doll(canvas: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Plastic skin with drawn eyes, brows and lips, as on dolls and rendered figures."""
    smooth = canvas
    for _ in range(int(rng.integers(3, 6))):
        smooth = cv2.bilateralFilter(smooth, 9, float(rng.uniform(25, 45)), 5)
    skin = np.median(smooth[_filled(at(points, _OUTLINE), CANVAS) > 0.5], axis=0)
    shape = cv2.GaussianBlur(_filled(at(points, _OUTLINE), CANVAS), (0, 0), 5)[..., None]
    even = smooth.astype(np.float32) + shape * rng.uniform(0.2, 0.7) * (skin - smooth)
    even = np.clip(even, 0, 255).astype(np.uint8)
    large = cv2.resize(even, None, fx=_FINER, fy=_FINER, interpolation=cv2.INTER_CUBIC)
    style = _style(rng, skin, float(rng.uniform(1.0, 1.4)), float(rng.uniform(1.0, 1.7)))
    _features(large, points * _FINER, rng, style)
    return cv2.resize(large, CANVAS[::-1], interpolation=cv2.INTER_AREA)


def cartoon(canvas: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A face drawn from the points alone, in styles from plain cartoons to anime with large eyes."""
    size = (CANVAS[0] * _FINER, CANVAS[1] * _FINER)
    points = points * _FINER
    picture = np.zeros((*size, 3), np.uint8)
    picture[:] = rng.uniform(0, 255, 3)
    if rng.random() < 0.4:
        ramp = np.linspace(0, 1, size[0])[:, None, None]
        picture[:] = (picture * (1 - ramp) + rng.uniform(0, 255, 3) * ramp).astype(np.uint8)
    dark, fair = np.array([90, 60, 45.0]), np.array([255, 228, 206.0])
    skin = dark + (fair - dark) * float(rng.beta(2, 0.8)) + rng.normal(0, 6, 3)
    if rng.random() < 0.08:
        skin = rng.uniform(60, 250, 3)
    tall = float(np.exp(rng.uniform(0, 0.9)))
    style = _style(rng, skin, float(rng.uniform(1.0, 1.5)), tall)
    outline = at(points, _OUTLINE).astype(np.float64)
    middle = outline.mean(axis=0)
    outline[1:-1, 0] = middle[0] + (outline[1:-1, 0] - middle[0]) * rng.uniform(0.8, 1.1)
    outline[3:6, 0] = middle[0] + (outline[3:6, 0] - middle[0]) * rng.uniform(0.3, 1.0)
    outline[0, 1] -= rng.uniform(0, 60)
    face = _smoothed(outline)
    width, height = np.ptp(face[:, 0]), np.ptp(face[:, 1])
    hair = rng.uniform(0, 255, 3) if rng.random() < 0.5 else rng.uniform(0, 110, 3)
    line = tuple(np.clip(skin * rng.uniform(0.1, 0.5), 0, 255)) if rng.random() < 0.75 else None
    thick = int(rng.integers(2, 7))
    back = (middle[0], face[:, 1].min() + height * rng.uniform(0.3, 0.5))
    if rng.random() < 0.85:
        axes = (width * rng.uniform(0.58, 0.85), height * rng.uniform(0.55, 1.1))
        cv2.ellipse(picture, _whole(back), _whole(axes), 0, 0, 360, tuple(hair * 0.8), -1, cv2.LINE_AA)
    neck, chin = width * rng.uniform(0.15, 0.3), face[:, 1].max()
    throat = _whole((middle[0] - neck, chin - 40)), _whole((middle[0] + neck, size[0]))
    cv2.rectangle(picture, *throat, tuple(skin * 0.85), -1)
    shirt = np.array([(middle[0] - neck, chin + 40), (middle[0] + neck, chin + 40), (size[1] * 1.2, size[0] * 1.1),
                      (-size[1] * 0.2, size[0] * 1.1)])  # fmt: skip
    cv2.fillPoly(picture, [np.round(shirt).astype(np.int32)], tuple(rng.uniform(0, 255, 3)), cv2.LINE_AA)
    _area(picture, face, skin, line, thick)
    _shade(picture, face, skin, rng)
    _features(picture, points, rng, style)
    _fringe(picture, face, hair, line, thick, rng)
    if rng.random() < 0.35:
        # The soft light of airbrushed drawings and of renders.
        soft = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(6, 18)))
        picture = cv2.addWeighted(picture, 0.6, soft, 0.4, 0)
    out = cv2.resize(picture, CANVAS[::-1], interpolation=cv2.INTER_AREA)
    if rng.random() < 0.3:
        grain = cv2.GaussianBlur(rng.normal(0, 1, (*CANVAS, 3)).astype(np.float32), (0, 0), float(rng.uniform(0.5, 3)))
        out = np.clip(out + grain * rng.uniform(3, 18), 0, 255).astype(np.uint8)
    return out


STYLES: dict[str, tuple[Draw, float]] = {
    "painted": (painted, 0.36),
    "flattened": (flattened, 0.16),
    "inked": (inked, 0.10),
    "sculpted": (sculpted, 0.06),
    "doll": (doll, 0.10),
    "cartoon": (cartoon, 0.22),
}
"""Each style and its share of the draws."""


def draw(canvas: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The portrait in a random style. A fifth of the results are also painted or flattened, so that styles mix."""
    names = list(STYLES)
    odds = [STYLES[name][1] for name in names]
    out = STYLES[names[int(rng.choice(len(names), p=odds))]][0](canvas, points, rng)
    if rng.random() < 0.2:
        out = (painted, flattened)[int(rng.integers(2))](np.ascontiguousarray(out), points, rng)
    return np.ascontiguousarray(out)


def _style(rng: np.random.Generator, skin: np.ndarray, wide: float, tall: float) -> dict:
    return {
        "skin": skin, "wide": wide, "tall": tall,
        "iris": rng.uniform(20, 220, 3), "white": 255 - np.abs(rng.normal(0, 12, 3)),
        "ink": np.clip(rng.uniform(0, 60, 3), 0, 255), "lips": np.clip(skin * rng.uniform(0.5, 0.9, 3), 0, 255),
        "full": rng.random() < 0.5, "mouth": rng.uniform(0.45, 1.0), "shine": rng.random() < 0.75,
        "iris_size": rng.uniform(0.75, 1.25), "lash": int(rng.integers(1, 9)),
    }  # fmt: skip


def _features(picture: np.ndarray, points: np.ndarray, rng: np.random.Generator, style: dict) -> None:
    """Draw eyes, brows, mouth and nose, in place."""
    ink = tuple(style["ink"])
    for lids, iris, brows in zip(_LIDS, _IRISES, _BROWS, strict=True):
        contour = at(points, lids).astype(np.float64)
        middle = contour.mean(axis=0)
        contour = middle + (contour - middle) * (style["wide"], style["tall"])
        shape = _smoothed(contour)
        mask = np.zeros(picture.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.round(shape).astype(np.int32)], 255, cv2.LINE_AA)
        eye = np.zeros_like(picture)
        eye[:] = style["white"]
        tall = float(np.ptp(shape[:, 1]))
        radius = max(4.0, 0.5 * max(tall, 0.38 * float(np.ptp(shape[:, 0]))) * style["iris_size"])
        centre = middle + (at(points, [iris])[0] - middle) * (1.0, 0.5)
        _ellipse(eye, centre, (radius * 0.85, radius), style["iris"] * 0.6)
        _ellipse(eye, centre + np.array([0, radius * 0.2]), (radius * 0.7, radius * 0.75), style["iris"])
        cv2.circle(eye, _whole(centre), max(2, round(radius * 0.4)), ink, -1, cv2.LINE_AA)
        if style["shine"]:
            _ellipse(eye, centre - radius * 0.3, (radius * 0.28, radius * 0.28), np.full(3, 255.0))
        share = mask[..., None].astype(np.float32) / 255
        picture[:] = (picture + share * (eye.astype(np.float32) - picture)).astype(np.uint8)
        upper = min(np.array_split(shape, 2), key=lambda half: half[:, 1].mean())
        cv2.polylines(picture, [np.round(upper).astype(np.int32)], False, ink, style["lash"], cv2.LINE_AA)
        brow = at(points, brows) - (0, (style["tall"] - 1) * 10)
        cv2.polylines(picture, [np.round(brow).astype(np.int32)], False, ink, 2 + style["lash"], cv2.LINE_AA)
    lips = at(points, _OUTER).astype(np.float64)
    middle = lips.mean(axis=0)
    lips = _smoothed(middle + (lips - middle) * style["mouth"])
    colour = tuple(style["lips"] if style["full"] else style["skin"])
    cv2.fillPoly(picture, [np.round(lips).astype(np.int32)], colour, cv2.LINE_AA)
    corners = middle + (at(points, [61, 13, 291]) - middle) * style["mouth"]
    cv2.polylines(picture, [np.round(corners).astype(np.int32)], False, ink, max(1, style["lash"] // 2), cv2.LINE_AA)
    left, tip, right = at(points, [_NOSE[0]])[0], at(points, [_TIP])[0], at(points, [_NOSE[1]])[0]
    dark = tuple(np.clip(style["skin"] * 0.6, 0, 255))
    nose = [left, tip + np.array([0, 8]), right] if rng.random() < 0.5 else [at(points, [_BRIDGE])[0], tip, left]
    thick = max(1, style["lash"] // 2)
    cv2.polylines(picture, [np.round(np.array(nose)).astype(np.int32)], False, dark, thick, cv2.LINE_AA)


def _area(picture: np.ndarray, outline: np.ndarray, colour: np.ndarray, line: tuple | None, thick: int) -> None:
    shape = [np.round(outline).astype(np.int32)]
    cv2.fillPoly(picture, shape, tuple(np.clip(colour, 0, 255)), cv2.LINE_AA)
    if line is not None:
        cv2.polylines(picture, shape, True, line, thick, cv2.LINE_AA)


def _shade(picture: np.ndarray, face: np.ndarray, skin: np.ndarray, rng: np.random.Generator) -> None:
    """A shadow on one side of the face, with a hard or a soft edge, in place."""
    inside = _filled(face, picture.shape[:2])
    moved = face + rng.normal(0, 0.12, 2) * np.ptp(face, axis=0)
    shadow = inside * (1 - _filled(moved, picture.shape[:2]))
    if rng.random() < 0.5:
        shadow = cv2.GaussianBlur(shadow, (0, 0), float(rng.uniform(8, 30))) * inside
    picture[:] = np.clip(picture - shadow[..., None] * skin * rng.uniform(0.1, 0.45), 0, 255).astype(np.uint8)


def _fringe(
    picture: np.ndarray, face: np.ndarray, hair: np.ndarray, line: tuple | None, thick: int, rng: np.random.Generator
) -> None:
    """Hair over the forehead, in place: pointed strands or one smooth shape."""
    top, left, right = face[:, 1].min(), face[:, 0].min(), face[:, 0].max()
    height = float(np.ptp(face[:, 1]))
    count = int(rng.integers(3, 9))
    x = np.linspace(left - 8, right + 8, 2 * count + 1)
    y = np.full(len(x), top + height * rng.uniform(0.08, 0.2))
    y[1::2] += height * rng.uniform(-0.05, 0.25, count)
    y[[0, -1]] += height * rng.uniform(0, 0.5)
    low = np.stack([x, y], axis=1)
    if rng.random() < 0.4:
        low = np.stack([x, cv2.GaussianBlur(y[None], (7, 1), 2.0)[0]], axis=1)
    crown = [((left + right) / 2 + (right - left) * 0.62 * np.cos(a), top + height * (0.12 - 0.26 * np.sin(a)))
             for a in np.linspace(0, np.pi, 12)]  # fmt: skip
    _area(picture, np.concatenate([low, np.array(crown)]), hair, line, thick)
    if rng.random() < 0.5:
        shine = hair + (255 - hair) * rng.uniform(0.2, 0.6)
        middle = ((left + right) / 2, top - height * 0.02)
        axes = _whole(((right - left) * 0.4, height * 0.06))
        cv2.ellipse(picture, _whole(middle), axes, 0, 190, 350, tuple(shine), thick, cv2.LINE_AA)


def _ellipse(picture: np.ndarray, centre: np.ndarray, axes: tuple[float, float], colour: np.ndarray) -> None:
    whole = max(1, round(float(axes[0]))), max(1, round(float(axes[1])))
    cv2.ellipse(picture, _whole(centre), whole, 0, 0, 360, tuple(colour), -1, cv2.LINE_AA)


def _smoothed(outline: np.ndarray) -> np.ndarray:
    """A closed outline [n, 2] with rounded corners (three rounds of Chaikin's subdivision)."""
    for _ in range(3):
        following = np.roll(outline, -1, axis=0)
        outline = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], 1).reshape(-1, 2)
    return outline


def _filled(outline: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [height, width] of this size, 1 inside the outline and 0 outside."""
    shape = np.zeros(size, np.float32)
    cv2.fillPoly(shape, [np.round(outline).astype(np.int32)], 1.0, cv2.LINE_AA)
    return shape


def _whole(place: np.ndarray | tuple[float, float]) -> tuple[int, int]:
    return round(float(place[0])), round(float(place[1]))
