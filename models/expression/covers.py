"""Occluders ("covers") of a face in the network's crop, and the share of the face that they hide.

A cover is a `Layer`: colours and opacity, in the size of the crop. Shapes are placed relative to the mesh points of the
face; hands are photographs (cutouts.py). Covers are pasted before the tones of a crop are changed and it is blurred and
compressed; otherwise, the network could detect them by their edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.expression.architecture import POINTS
from streamgate.networks.alignment import EXPRESSION_SIZE

HEIGHT, WIDTH = EXPRESSION_SIZE
CELL = 16
"""Side in pixels of a cell of the map that shows where a face is covered."""

_EYES = ([33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246],
         [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466])  # fmt: skip
_LIPS = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
_BROWS, _CHIN, _JAW, _NOSE, _BRIDGE = [70, 63, 105, 107, 336, 334, 293, 300], 152, (172, 397), 4, 6
_FEATURE_WEIGHT, _CHIN_WEIGHT, _FOREHEAD_WEIGHT = 3.0, 2.0, 0.4
"""Weights of the pixels of eyes and mouth, of the pixels below the lips (which hands and microphones cover most often),
and of the pixels above the brows, where there may be hair; all others have weight 1."""


@dataclass(frozen=True)
class Layer:
    """colour: float32 [144, 128, 3], RGB levels 0..255; alpha: float32 [144, 128], 0 transparent to 1 opaque."""

    colour: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True)
class Bank:
    """Photographs with which faces are covered.

    hands: uint8 [h, side, side, 4] RGB and opacity, the wrist at the bottom; things: uint8 [t, side, side, 3] RGB.
    """

    hands: np.ndarray
    things: np.ndarray


def at(points: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """The mesh points with these numbers, [n, 2]; points: [P, 2] in the order of POINTS."""
    return points[[POINTS.index(n) for n in numbers]]


def face_weights(points: np.ndarray) -> np.ndarray:
    """float32 [144, 128]: the weight of each pixel of a face (0 outside), from forehead to chin."""
    weights = filled(cv2.convexHull(points.astype(np.float32))[:, 0])
    brows = at(points, _BROWS)[:, 1].min()
    rows = np.arange(HEIGHT)[:, None]
    lips = at(points, _LIPS)[:, 1].max()
    weights *= np.where(rows < brows, _FOREHEAD_WEIGHT, np.where(rows > lips, _CHIN_WEIGHT, 1.0)).astype(np.float32)
    for part in (*_EYES, _LIPS):
        shape = filled(cv2.convexHull(at(points, part).astype(np.float32))[:, 0])
        grown = cv2.dilate(shape, np.ones((7, 7), np.uint8))
        weights = np.where((grown > 0.5) & (weights > 0), _FEATURE_WEIGHT, weights)
    return weights.astype(np.float32)


def covered_share(alpha: np.ndarray, weights: np.ndarray) -> float:
    """Share of the face that a cover hides, 0..1."""
    return float((alpha * weights).sum() / max(float(weights.sum()), 1.0))


def cell_means(values: np.ndarray) -> np.ndarray:
    """float32 [9, 8], means of [144, 128] over the cells of the map."""
    return values.reshape(HEIGHT // CELL, CELL, WIDTH // CELL, CELL).mean(axis=(1, 3))


def paste(crop: np.ndarray, layer: Layer, shadow: float = 0.0) -> np.ndarray:
    """The crop with a cover, uint8; shadow: how much the cover darkens the area next to it, 0..1."""
    ground = crop.astype(np.float32)
    if shadow > 0:
        cast = cv2.GaussianBlur(np.roll(layer.alpha, (3, 2), (0, 1)), (0, 0), 5.0)
        ground *= 1.0 - shadow * cast[..., None]
    mixed = ground + layer.alpha[..., None] * (layer.colour - ground)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def draw(crop: np.ndarray, points: np.ndarray, rng: np.random.Generator, bank: Bank, kind: str) -> Layer:
    """A random cover of one kind for a face with mesh points [P, 2] in pixels of the crop."""
    layer = KINDS[kind][0](crop, points, rng, bank)
    softness = float(rng.uniform(0.0, 0.5) if rng.random() < 0.5 else rng.uniform(0.5, 1.4))
    if softness > 0.25:
        layer = Layer(layer.colour, cv2.GaussianBlur(layer.alpha, (0, 0), softness))
    return layer


def hand(crop: np.ndarray, points: np.ndarray, rng: np.random.Generator, bank: Bank) -> Layer:
    """A photograph of a hand whose arm comes from outside the face; its tone is sometimes matched to the face's."""
    cut = bank.hands[int(rng.integers(len(bank.hands)))]
    side = cut.shape[0]
    # The arm continues below the photograph.
    long = cv2.copyMakeBorder(cut, 0, 2 * side, 0, 0, cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:
        long = long[:, ::-1]
    rows, columns = np.nonzero(cut[..., 3] > 128)
    grip = int(rng.integers(len(rows))) if rng.random() < 0.6 else int(rng.integers(max(1, len(rows) // 6)))
    column = columns[grip] if long[rows[grip], columns[grip], 3] > 128 else side - 1 - columns[grip]
    target = _place_on(points, rng)
    middle = at(points, [_NOSE])[0]
    outward = np.degrees(np.arctan2(*(target - middle + np.array([0.0, 25.0]))[::-1]))
    # The photograph's arm points down (90 degrees); it is turned to point away from the face, more or less.
    turn = 90.0 - outward + rng.normal(0, 35)
    scale = float(np.exp(rng.uniform(np.log(0.8), np.log(2.1))) * 100 / side)
    matrix = cv2.getRotationMatrix2D((float(column), float(rows[grip])), turn, scale)
    matrix[:, 2] += target - np.array([column, rows[grip]], float)
    placed = cv2.warpAffine(np.ascontiguousarray(long), matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    colour, alpha = placed[..., :3].astype(np.float32), placed[..., 3].astype(np.float32) / 255
    colour = _toned_like(colour, alpha, crop, points, rng)
    if rng.random() < 0.25:
        colour, alpha = _smeared(colour, alpha, rng)
    return Layer(colour, alpha)


def microphone(crop: np.ndarray, points: np.ndarray, rng: np.random.Generator, bank: Bank) -> Layer:
    """A microphone in front of mouth or chin: a round or oblong head of mesh or foam on a handle, sometimes with a hand
    that holds it.
    """
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    mouth, chin = at(points, _LIPS).mean(axis=0), at(points, [_CHIN])[0]
    head = mouth + (chin - mouth) * rng.uniform(-0.1, 1.15) + rng.normal(0, (14, 4))
    foot = head + np.array([rng.normal(0, 45), rng.uniform(60, 120)])
    radius = rng.uniform(7, 26)
    oblong = radius * rng.uniform(0.9, 1.7)
    dark = rng.random() < 0.7
    base = rng.uniform(10, 70) * np.ones(3) if dark else rng.uniform(60, 255, 3)
    stick = radius * rng.uniform(0.3, 0.9)
    _thick_line(alpha, head, foot, stick)
    colour = np.ones((HEIGHT, WIDTH, 3), np.float32) * (base * rng.uniform(0.4, 1.2))
    shape = np.zeros_like(alpha)
    turn = float(np.degrees(np.arctan2(*(foot - head)[::-1])))
    axes = (max(3, round(oblong)), max(3, round(radius)))
    cv2.ellipse(shape, _pixel(head), axes, turn, 0, 360, 1.0, -1, cv2.LINE_AA)
    if rng.random() < 0.2:
        corners = cv2.boxPoints((tuple(map(float, head)), (2.2 * oblong, 1.6 * radius), turn))
        cv2.fillPoly(shape, [np.round(corners).astype(np.int32)], 1.0, cv2.LINE_AA)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    period = rng.uniform(2, 5)
    mesh = (np.sin(x * 2 * np.pi / period) * np.sin(y * 2 * np.pi / period)) * rng.uniform(0, 25)
    light = 1.2 - np.hypot(x - head[0] + radius / 3, y - head[1] + radius / 3) / (2.2 * oblong)
    ball = np.clip(base * light[..., None] + mesh[..., None] + _grain(rng, 8), 0, 255)
    colour = colour + shape[..., None] * (ball - colour)
    alpha = np.maximum(alpha, shape)
    if len(bank.hands) and rng.random() < 0.35:
        holding = hand(crop, points + (foot - head) * rng.uniform(0.25, 0.5), rng, bank)
        below = np.clip((y - head[1]) / 6, 0, 1) * holding.alpha
        colour, alpha = colour + below[..., None] * (holding.colour - colour), np.maximum(alpha, below)
    return Layer(colour.astype(np.float32), alpha)


def banner(crop: np.ndarray, points: np.ndarray, rng: np.random.Generator, bank: Bank) -> Layer:
    """A strip with hard edges, mostly over the lower face, with letters or without; or letters without a strip."""
    low = max(70.0, float(at(points, [_CHIN])[0, 1]) + 12)
    centre = float(rng.uniform(20, low) if rng.random() < 0.3 else rng.uniform(60, low))
    height = float(np.exp(rng.uniform(np.log(9), np.log(56))))
    left, right = (-4, WIDTH + 4) if rng.random() < 0.65 else sorted(rng.uniform(-20, WIDTH + 20, 2))
    right = max(right, left + 30)
    top, bottom = round(centre - height / 2), round(centre + height / 2)
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    colour = np.ones((HEIGHT, WIDTH, 3), np.float32) * rng.uniform(0, 255, 3).astype(np.float32)
    lettered = rng.random() < 0.6
    if not lettered or rng.random() < 0.75:
        opacity = 1.0 if rng.random() < 0.6 else rng.uniform(0.6, 1.0)
        cv2.rectangle(alpha, (round(left), top), (round(right), bottom), float(opacity), -1)
        if rng.random() < 0.35:
            colour = colour + np.linspace(-60, 60, WIDTH, dtype=np.float32)[None, :, None] * rng.normal()
        if rng.random() < 0.3:
            colour[: round(top + rng.uniform(1, 6))] = rng.uniform(0, 255, 3)
    if lettered:
        _write(colour, alpha, (left, top, right, bottom), rng)
    if rng.random() < 0.2:
        turn = cv2.getRotationMatrix2D((WIDTH / 2, centre), float(rng.normal(0, 12)), 1.0)
        alpha = cv2.warpAffine(alpha, turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
        colour = cv2.warpAffine(colour, turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    return Layer(np.clip(colour, 0, 255), alpha)


def thing(crop: np.ndarray, points: np.ndarray, rng: np.random.Generator, bank: Bank) -> Layer:
    """An object such as a phone, a cup, a book or a cloth: a box, an oval or a blob, plain or with the texture of a
    photograph.
    """
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    centre = _place_on(points, rng)
    half = np.exp(rng.uniform(np.log(7), np.log(48), 2))
    turn = float(rng.uniform(0, 180))
    draw_from = rng.random()
    if draw_from < 0.3:
        cv2.ellipse(alpha, _pixel(centre), _pixel(half), turn, 0, 360, 1.0, -1, cv2.LINE_AA)
    elif draw_from < 0.65:
        corners = cv2.boxPoints((tuple(map(float, centre)), tuple(map(float, 2 * half)), turn))
        cv2.fillPoly(alpha, [np.round(corners).astype(np.int32)], 1.0, cv2.LINE_AA)
    else:
        angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        reach = half.mean() * np.exp(cv2.GaussianBlur(rng.normal(0, 0.6, (1, 14)), (5, 1), 1.0)[0])
        outline = centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cv2.fillPoly(alpha, [np.round(outline).astype(np.int32)], 1.0, cv2.LINE_AA)
    return Layer(texture(rng, bank), alpha)


def hair(crop: np.ndarray, points: np.ndarray, rng: np.random.Generator, bank: Bank) -> Layer:
    """Strands or a curtain of hair in front of eyes, cheek or mouth; the forehead that it covers has a low weight."""
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    start, sweep = rng.uniform(-10, WIDTH + 10), rng.normal(0, 30)
    spread, length = rng.uniform(6, 30), rng.uniform(55, 170)
    steps = np.linspace(0, 1, 9)
    for _ in range(int(rng.integers(25, 140))):
        x = start + rng.normal(0, spread)
        line = np.stack([x + sweep * steps**2 + rng.normal(0, 3) * steps, length * rng.uniform(0.6, 1.1) * steps], 1)
        cv2.polylines(alpha, [np.round(line).astype(np.int32)], False, 1.0, int(rng.integers(1, 4)), cv2.LINE_AA)
    base = _HAIR[int(rng.integers(len(_HAIR)))] + rng.normal(0, 10, 3)
    streaks = cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 0.8, sigmaY=9)
    colour = base + streaks[..., None] * rng.uniform(20, 90)
    return Layer(np.clip(colour, 0, 255).astype(np.float32), alpha)


def mask(crop: np.ndarray, points: np.ndarray, rng: np.random.Generator, bank: Bank) -> Layer:
    """A medical mask, a cloth mask or a scarf, from the nose or just below it to below the chin."""
    (left, right), chin = at(points, _JAW), at(points, [_CHIN])[0]
    if left[0] > right[0]:
        left, right = right, left
    bridge, tip = at(points, [_BRIDGE])[0], at(points, [_NOSE])[0]
    top = bridge + (tip - bridge) * rng.uniform(0.3, 1.35)
    side = (left[1] + top[1]) / 2 + rng.normal(0, 6)
    out = rng.uniform(2, 14)
    outline = np.array([
        (left[0] - out, side), ((left[0] + top[0]) / 2, (side + top[1]) / 2 - 2), (top[0] - 6, top[1]),
        (top[0] + 6, top[1]), ((right[0] + top[0]) / 2, (side + top[1]) / 2 - 2), (right[0] + out, side),
        (right[0] + out / 2, chin[1] - 4), (chin[0] + 16, chin[1] + rng.uniform(4, 14)),
        (chin[0] - 16, chin[1] + rng.uniform(4, 14)), (left[0] - out / 2, chin[1] - 4),
    ])  # fmt: skip
    alpha = filled(outline + rng.normal(0, 1.5, outline.shape))
    return Layer(texture(rng, bank, plain=0.8), alpha)


def edge(crop: np.ndarray, points: np.ndarray, rng: np.random.Generator, bank: Bank) -> Layer:
    """A person or wall in front of the face, or the edge of the picture: everything beyond a straight or bent line."""
    angle = np.radians(rng.choice([0, 90, 180]) + rng.normal(0, 15))
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x, y = x - WIDTH / 2, y - HEIGHT / 2
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    bend = rng.normal(0, 0.006) if rng.random() < 0.5 else 0.0
    alpha = (along + bend * across**2 > rng.uniform(5, 60)).astype(np.float32)
    return Layer(texture(rng, bank), alpha)


Draw = Callable[[np.ndarray, np.ndarray, np.random.Generator, Bank], Layer]
KINDS: dict[str, tuple[Draw, float]] = {
    "hand": (hand, 0.36),
    "microphone": (microphone, 0.17),
    "banner": (banner, 0.14),
    "thing": (thing, 0.13),
    "hair": (hair, 0.06),
    "mask": (mask, 0.08),
    "edge": (edge, 0.06),
}
"""Each kind of cover and its share of the draws."""

_HAIR = np.array([[25, 20, 18], [60, 40, 28], [110, 75, 45], [190, 155, 100], [150, 150, 150]], np.float32)


def texture(rng: np.random.Generator, bank: Bank, plain: float = 0.55) -> np.ndarray:
    """float32 [144, 128, 3]: with probability `plain` a colour with folds, light and grain, else a part of a photo."""
    if len(bank.things) and rng.random() > plain:
        photo = bank.things[int(rng.integers(len(bank.things)))]
        size = max(HEIGHT, WIDTH)
        photo = np.rot90(cv2.resize(photo, (size, size), interpolation=cv2.INTER_AREA), int(rng.integers(4)))
        return np.ascontiguousarray(photo[:HEIGHT, :WIDTH]).astype(np.float32)
    base = rng.uniform(0, 255, 3) if rng.random() < 0.5 else rng.uniform(0, 255) + rng.normal(0, 12, 3)
    folds = rng.normal(0, 1, (int(rng.integers(2, 9)), int(rng.integers(2, 9)))).astype(np.float32)
    light = cv2.resize(folds, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * rng.uniform(0, 28)
    return np.clip(base + light[..., None] + _grain(rng, 10), 0, 255).astype(np.float32)


def filled(outline: np.ndarray) -> np.ndarray:
    """float32 [144, 128], 1 inside a polygon [n, 2]."""
    shape = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.fillPoly(shape, [np.round(outline).astype(np.int32)], 1.0, cv2.LINE_AA)
    return shape


def _place_on(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The place of a cover: mostly on the chin or the mouth, otherwise anywhere on the face or just next to it."""
    low, high = points.min(axis=0), points.max(axis=0)
    chin, mouth = at(points, [_CHIN])[0], at(points, _LIPS).mean(axis=0)
    where = rng.random()
    if where < 0.4:
        return chin + rng.normal(0, (20, 9))
    if where < 0.65:
        return mouth + rng.normal(0, (18, 12))
    return rng.uniform(low - 6, high + 6)


def _toned_like(
    colour: np.ndarray, alpha: np.ndarray, crop: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A hand's colours, matched completely or partly to the mean and spread of the face's colours."""
    inside = alpha > 0.5
    skin = filled(cv2.convexHull(points.astype(np.float32))[:, 0]) > 0.5
    if inside.sum() < 20 or skin.sum() < 20:
        return colour
    face = crop[skin].astype(np.float32)
    face = face[face.mean(axis=1) > np.quantile(face.mean(axis=1), 0.3)]
    own = colour[inside]
    moved = (colour - own.mean(axis=0)) * min(2.0, float(face.std() / max(own.std(), 8.0)) + 0.3)
    share = 1.0 if rng.random() < 0.6 else rng.uniform(0, 1)
    gain = np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.03, 3))
    toned = (moved + face.mean(axis=0)) * share + colour * (1 - share)
    return np.clip(toned * gain, 0, 255).astype(np.float32)


def _smeared(colour: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The cover with motion blur."""
    length, angle = int(rng.integers(5, 17)), float(rng.uniform(0, 180))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1.0
    kernel = cv2.warpAffine(kernel, cv2.getRotationMatrix2D(((length - 1) / 2,) * 2, angle, 1.0), (length, length))
    kernel /= max(float(kernel.sum()), 1e-6)
    thick = np.clip(cv2.filter2D(alpha, -1, kernel), 0.0, 1.0)
    mixed = cv2.filter2D(colour * alpha[..., None], -1, kernel) / np.maximum(thick, 1e-3)[..., None]
    return mixed.astype(np.float32), thick


def _write(colour: np.ndarray, alpha: np.ndarray, box: Sequence[float], rng: np.random.Generator) -> None:
    """Draw letters into a box, in place."""
    left, top, _, bottom = box
    size = max(0.25, (bottom - top) / 34 * rng.uniform(0.6, 1.0))
    letters = np.zeros((HEIGHT, WIDTH), np.uint8)
    text = "".join(chr(int(rng.integers(65, 91))) if rng.random() < 0.85 else " " for _ in range(16))
    thick = max(1, round(size * rng.uniform(1, 2.6)))
    cv2.putText(letters, text, (round(left) + 4, round((top + bottom) / 2 + 9 * size)), int(rng.integers(0, 5)),
                float(size), 255, thick, cv2.LINE_AA)  # fmt: skip
    ink = (255.0, 0.0)[int(rng.random() < 0.3)] if rng.random() < 0.7 else rng.uniform(0, 255, 3)
    if rng.random() < 0.5:
        rim = cv2.dilate(letters, np.ones((3, 3), np.uint8)).astype(np.float32) / 255
        colour += rim[..., None] * (255.0 - np.asarray(ink) - colour)
        np.maximum(alpha, rim, out=alpha)
    share = letters.astype(np.float32) / 255
    colour += share[..., None] * (np.asarray(ink, np.float32) - colour)
    np.maximum(alpha, share, out=alpha)


def _thick_line(shape: np.ndarray, start: np.ndarray, end: np.ndarray, width: float) -> None:
    cv2.line(shape, _pixel(start), _pixel(end), 1.0, max(2, round(width)), cv2.LINE_AA)


def _grain(rng: np.random.Generator, most: float) -> np.ndarray:
    return (rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32) * rng.uniform(0, most))[..., None]


def _pixel(place: Sequence[float] | np.ndarray) -> tuple[int, int]:
    return round(float(place[0])), round(float(place[1]))
