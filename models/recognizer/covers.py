"""Synthetic covers of an aligned face, and the share of the face that stays visible.

Pictures are uint8 [112, 112, 3] RGB in ArcFace's alignment. A cover is a soft shape filled with a coloured texture. It
need not look realistic: the network only has to learn that something other than a face hides the face.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

SIDE = 112
ELLIPSE = (56.0, 66.0, 38.0, 50.0)
"""The face in the aligned picture, from forehead to chin of a frontal face: centre x, y and half axes, in pixels."""

REAL_MASK_VISIBLE = 0.5
"""Visible share assumed for photographs of real masks: the rounded median of the drawn masks."""

Shape = np.ndarray
"""float32 [112, 112], 1 inside the cover."""


def face_ellipse() -> np.ndarray:
    """float32 [112, 112], 1 inside the face."""
    y, x = np.mgrid[:SIDE, :SIDE]
    cx, cy, rx, ry = ELLIPSE
    return ((((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) <= 1).astype(np.float32)


_FACE = face_ellipse()
_FACE_AREA = float(_FACE.sum())


def draw_cover(
    picture: np.ndarray, rng: np.random.Generator, other: np.ndarray, kind: str | None = None
) -> tuple[np.ndarray, float]:
    """The picture with one random cover (of the given kind), and the visible share of the face ellipse, 0..1.

    other: uint8 [112, 112, 3], a picture from which some covers take their texture.
    """
    if kind is None:
        kinds = list(KINDS)
        kind = kinds[int(rng.choice(len(kinds), p=[KINDS[name][1] for name in kinds]))]
    shape = cv2.GaussianBlur(KINDS[kind][0](rng), (0, 0), float(rng.uniform(0.4, 1.2)))
    fill = texture(rng, kind, other)
    mixed = picture + shape[..., None] * (fill - picture)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8), visible_share(shape)


def visible_share(shape: Shape) -> float:
    """Share of the face ellipse outside a cover, 0..1."""
    return 1.0 - float((shape * _FACE).sum()) / _FACE_AREA


def mask(rng: np.random.Generator) -> Shape:
    """A medical or cloth mask, from the bridge or tip of the nose to below the chin; half of them with straps."""
    top, side = rng.uniform(58, 78), rng.uniform(66, 88)
    left, right = rng.uniform(8, 26), rng.uniform(86, 104)
    bottom = rng.uniform(104, 122)
    points = [
        (left, side),
        (rng.uniform(36, 46), (top + side) / 2),
        (rng.uniform(52, 60), top),
        (rng.uniform(66, 76), (top + side) / 2),
        (right, side),
        (right - rng.uniform(0, 10), bottom - 8),
        (rng.uniform(66, 80), bottom),
        (rng.uniform(32, 46), bottom),
        (left + rng.uniform(0, 10), bottom - 8),
    ]
    shape = _polygon(points)
    if rng.random() < 0.5:
        for x, edge in ((left, 0), (right, SIDE - 1)):
            cv2.line(shape, _pixel(x, side + 3), _pixel(edge, side - rng.uniform(4, 20)), 1.0, 1, cv2.LINE_AA)
    return shape


def hand(rng: np.random.Generator) -> Shape:
    """A palm and fingers that enter from a side or from below."""
    shape = np.zeros((SIDE, SIDE), np.float32)
    angle = rng.uniform(-0.3, np.pi + 0.3)
    reach = rng.uniform(15, 60)
    way = np.array([np.cos(angle), np.sin(angle)])
    palm = np.array([56.0, 66.0]) + way * reach
    cv2.ellipse(
        shape, _pixel(*palm), _pixel(rng.uniform(14, 24), rng.uniform(16, 26)), np.degrees(angle), 0, 360, 1, -1
    )
    cv2.line(shape, _pixel(*palm), _pixel(*(palm + way * 90)), 1.0, int(rng.integers(20, 34)))
    across = np.array([-way[1], way[0]])
    for finger in range(int(rng.integers(2, 5))):
        root = palm + across * (finger - 1.5) * 9
        tip = root - way * rng.uniform(22, 44) + across * rng.normal(0, 5)
        cv2.line(shape, _pixel(*root), _pixel(*tip), 1.0, int(rng.integers(7, 12)))
    return shape


def microphone(rng: np.random.Generator) -> Shape:
    """A round or oblong head in front of the mouth or chin, on a stick from below."""
    shape = np.zeros((SIDE, SIDE), np.float32)
    head = np.array([rng.uniform(35, 77), rng.uniform(82, 106)])
    foot = np.array([head[0] + rng.normal(0, 40), 140.0])
    cv2.line(shape, _pixel(*head), _pixel(*foot), 1.0, int(rng.integers(6, 16)))
    axes = _pixel(rng.uniform(9, 20), rng.uniform(9, 22))
    cv2.ellipse(shape, _pixel(*head), axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    return shape


def hair(rng: np.random.Generator) -> Shape:
    """Strands that fall from above over the forehead and one side of the face."""
    shape = np.zeros((SIDE, SIDE), np.float32)
    start, sweep = rng.uniform(10, 100), rng.normal(0, 25)
    spread, length = rng.uniform(8, 32), rng.uniform(35, 110)
    steps = np.linspace(0, 1, 8)
    for _ in range(int(rng.integers(20, 90))):
        x = start + rng.normal(0, spread)
        reach = length * rng.uniform(0.6, 1.1)
        line = np.stack([x + sweep * steps**2 + rng.normal(0, 3) * steps, reach * steps], axis=1)
        cv2.polylines(shape, [np.round(line).astype(np.int32)], False, 1.0, int(rng.integers(1, 4)), cv2.LINE_AA)
    return shape


def edge(rng: np.random.Generator) -> Shape:
    """Everything on one side of a line, like the edge of the picture, a wall or a person in front."""
    angle = rng.choice([0, 90, 180, 270]) + (rng.normal(0, 12) if rng.random() < 0.5 else 0.0)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    along = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))
    return (along > rng.uniform(-5, 45)).astype(np.float32)


def thing(rng: np.random.Generator) -> Shape:
    """A box or an oval anywhere over the face, like a phone, a cup or a book."""
    shape = np.zeros((SIDE, SIDE), np.float32)
    centre = np.array([rng.uniform(20, 92), rng.uniform(20, 108)])
    half, turn = rng.uniform(8, 32, 2), float(rng.uniform(0, 180))
    if rng.random() < 0.5:
        cv2.ellipse(shape, _pixel(*centre), _pixel(*half), turn, 0, 360, 1.0, -1)
    else:
        corners = cv2.boxPoints((tuple(map(float, centre)), tuple(map(float, 2 * half)), turn))
        cv2.fillPoly(shape, [np.round(corners).astype(np.int32)], 1.0, cv2.LINE_AA)
    return shape


KINDS: dict[str, tuple[Callable[[np.random.Generator], Shape], float]] = {
    "mask": (mask, 0.30),
    "hand": (hand, 0.20),
    "microphone": (microphone, 0.12),
    "hair": (hair, 0.12),
    "edge": (edge, 0.10),
    "thing": (thing, 0.16),
}
"""The kinds of covers: the function that draws each kind, and its probability."""

_SKIN = np.array([[233, 190, 160], [210, 160, 125], [180, 125, 92], [130, 85, 60], [85, 55, 40]], np.float32)
_HAIR = np.array([[25, 20, 18], [60, 40, 28], [110, 75, 45], [190, 155, 100], [150, 150, 150]], np.float32)
_CLOTH = np.array([[240, 240, 240], [120, 165, 210], [150, 200, 205], [30, 30, 32], [235, 180, 190]], np.float32)


def texture(rng: np.random.Generator, kind: str, other: np.ndarray) -> np.ndarray:
    """float32 [112, 112, 3]: a base colour with folds, light and grain, or a part of another picture."""
    if kind in ("edge", "thing") and rng.random() < 0.4:
        return np.roll(other, rng.integers(0, SIDE, 2), (0, 1)).astype(np.float32)
    palette = {"hand": _SKIN, "hair": _HAIR, "mask": _CLOTH}.get(kind)
    if palette is None or (kind == "mask" and rng.random() < 0.35):
        base = rng.uniform(0, 255, 3)
        if kind == "microphone":
            base = base * 0.35
    else:
        base = palette[int(rng.integers(len(palette)))] + rng.normal(0, 12, 3)
    folds = rng.normal(0, 1, (int(rng.integers(2, 9)), int(rng.integers(2, 9)))).astype(np.float32)
    light = cv2.resize(folds, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) * rng.uniform(3, 28)
    grain = rng.standard_normal((SIDE, SIDE), dtype=np.float32) * rng.uniform(0, 14)
    return np.clip(base + (light + grain)[..., None], 0, 255).astype(np.float32)


def _polygon(points: list[tuple[float, float]]) -> Shape:
    shape = np.zeros((SIDE, SIDE), np.float32)
    cv2.fillPoly(shape, [np.round(np.array(points)).astype(np.int32)], 1.0, cv2.LINE_AA)
    return shape


def _pixel(x: float, y: float) -> tuple[int, int]:
    return round(float(x)), round(float(y))
