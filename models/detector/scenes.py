"""Training scenes: mosaics, close-ups and empty views, composed from labelled pictures.

A scene is uint8 [H, W, 3] RGB with faces float32 [n, 16] (faces.py). Their score is 1 for a face, and 0 for neither
face nor background (too small, too much hidden, or an uncertain detection).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.common.degrade import blur, greyscale, jpeg, lowres, night, noise, tone
from models.detector import faces as rows_of
from models.detector.faces import BOX, HAS_POINTS, POINTS, SCORE, SURE
from models.detector.pictures import PictureSet

MIRRORED = (1, 0, 2, 4, 3)
"""New order of the landmarks in a mirrored picture."""
LARGE = 512
"""Scenes higher than this are mostly close-ups: only they have room for faces of the largest prior's size and more."""
LEAST_SHARE = 0.5
"""If a smaller share of a box than this is inside its cell of the scene, it is neither face nor background."""


@dataclass(frozen=True)
class Composition:
    """config.toml, [scene]: shares of the scenes, 0..1; sizes in pixels, or as shares of the scene's height."""

    close_up: float
    close_up_large: float
    empty: float
    whole: float
    smallest_px: float
    close_low: float
    close_high: float
    most_enlarged: float
    background_cells: float
    turned: float
    turn_degrees: float
    toned: float
    grey: float
    night: float
    blurred: float
    coded: float
    noisy: float
    small_camera: float


class Scenes:
    """Draws scenes from the pictures of a set."""

    def __init__(self, pictures: PictureSet, indexes: Sequence[int] | np.ndarray, how: Composition) -> None:
        """indexes: indices of the pictures to use."""
        self._pictures, self._how = pictures, how
        self._faces: list[tuple[int, int]] = []
        self._large: list[tuple[int, int]] = []
        self._empty: list[int] = []
        for index in map(int, indexes):
            faces = pictures.faces[index]
            if pictures.backgrounds[index]:
                self._empty.append(index)
            for number, side in enumerate(rows_of.sides(faces)):
                if faces[number, SCORE] >= SURE:
                    self._faces.append((index, number))
                    if side >= 90:
                        self._large.append((index, number))
        self._large = self._large or self._faces

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """A scene and its faces."""
        canvas, found = self._backdrop(rng, height, width), []
        kind = float(rng.random())
        how = self._how
        close_up = how.close_up_large if height > LARGE else how.close_up
        if kind < close_up:
            side = float(rng.uniform(how.close_low, how.close_high)) * height
            found.append(self._place(rng, canvas, (0, 0, width, height), side, self._large))
        elif kind < close_up + how.whole:
            side = float(np.exp(rng.uniform(np.log(0.1), np.log(0.5)))) * height
            found.append(self._place(rng, canvas, (0, 0, width, height), side, self._faces))
        elif kind >= close_up + how.whole + how.empty:
            for cell in split(rng, width, height):
                if self._empty and rng.random() < how.background_cells:
                    continue
                most = 0.8 * min(cell[2] - cell[0], cell[3] - cell[1])
                side = float(np.exp(rng.uniform(np.log(how.smallest_px), np.log(max(most, 1.3 * how.smallest_px)))))
                found.append(self._place(rng, canvas, cell, side, self._faces))
        faces = np.concatenate(found) if found else rows_of.rows()
        return self._coloured(canvas, rng), faces

    def _backdrop(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """Parts of one or two pictures without faces; a plain colour if there are no such pictures."""
        if not self._empty:
            return np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
        canvas = self._view(rng, height, width)
        if rng.random() < 0.3:
            cut = int(rng.uniform(0.25, 0.75) * width)
            canvas[:, cut:] = self._view(rng, height, width)[:, cut:]
        return canvas

    def _view(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        index = self._empty[int(rng.integers(len(self._empty)))]
        picture = self._pictures.picture(index)
        cover = max(height / picture.shape[0], width / picture.shape[1])
        scale = cover * float(np.exp(rng.uniform(0, np.log(2.5))))
        size = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
        x, y = (int(rng.integers(0, free + 1)) for free in (size[0] - width, size[1] - height))
        # Only the visible part is scaled, because greatly enlarging a whole picture would be the most expensive step.
        sx, sy = picture.shape[1] / size[0], picture.shape[0] / size[1]
        part = picture[int(y * sy) : int(np.ceil((y + height) * sy)), int(x * sx) : int(np.ceil((x + width) * sx))]
        filter_ = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        view = cv2.resize(part, (width, height), interpolation=filter_)
        return np.ascontiguousarray(view[:, ::-1] if rng.random() < 0.5 else view)

    def _place(
        self,
        rng: np.random.Generator,
        canvas: np.ndarray,
        cell: tuple[int, int, int, int],
        side: float,
        among: list[tuple[int, int]],
    ) -> np.ndarray:
        """Draw a picture into `cell` (x1, y1, x2, y2) so that one of its faces has size `side`; returns the faces."""
        index, number = among[int(rng.integers(len(among)))]
        rows = self._pictures.faces[index]
        own = float(rows_of.sides(rows[number : number + 1])[0])
        scale = min(side / own, self._how.most_enlarged)
        picture = self._pictures.picture(index, 4 if scale < 0.22 else 2 if scale < 0.45 else 1)
        width = self._pictures.widths[index]
        if scale * width < 0.7 * picture.shape[1]:
            # warpAffine does not average, so a picture that shrinks is first scaled down by area.
            size = (max(1, round(width * scale)), max(1, round(picture.shape[0] * width * scale / picture.shape[1])))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        if rng.random() < 0.5:
            rows, picture = mirror(rows, width), np.ascontiguousarray(picture[:, ::-1])
        spin = turn(rng, self._how.turned, self._how.turn_degrees)
        middle = spin @ ((rows[number, :2] + rows[number, 2:4]) / 2 * scale)
        x1, y1, x2, y2 = cell
        half = own * scale / 2
        target = [
            float(rng.uniform(low + min(half, (high - low) / 2), high - min(half, (high - low) / 2)))
            for low, high in ((x1, x2), (y1, y2))
        ]
        if rng.random() < 0.15:  # partly outside
            target = [t + float(rng.uniform(-0.8, 0.8)) * half for t in target]
        shift = np.array(target) - middle
        gain = spin * (scale * width / picture.shape[1])
        matrix = np.concatenate([gain, (shift - (x1, y1) + gain @ [0.5, 0.5] - 0.5)[:, None]], axis=1)
        part = canvas[y1:y2, x1:x2]
        canvas[y1:y2, x1:x2] = cv2.warpAffine(
            picture, matrix, (x2 - x1, y2 - y1), dst=part.copy(),
            flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT,
        )  # fmt: skip
        return self._seen(move(rows, spin, scale, shift), cell)

    def _seen(self, rows: np.ndarray, cell: tuple[int, int, int, int]) -> np.ndarray:
        """The rows clipped to their cell, with score 1 (a face) or 0 (ignored), without those outside the cell."""
        clipped = rows.copy()
        clipped[:, [0, 2]] = np.clip(rows[:, [0, 2]], cell[0], cell[2])
        clipped[:, [1, 3]] = np.clip(rows[:, [1, 3]], cell[1], cell[3])
        share = (rows_of.sides(clipped) / np.maximum(rows_of.sides(rows), 1e-6)) ** 2
        faces = (rows[:, SCORE] >= SURE) & (share >= LEAST_SHARE)
        faces &= rows_of.sides(clipped) >= 0.85 * self._how.smallest_px
        clipped[:, SCORE] = faces
        return clipped[share > 0.02]

    def _coloured(self, scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Apply light, night, blur, low resolution, noise, compression and greyscale, each to a share of scenes."""
        how = self._how
        unit = scene.shape[1] / 256  # degrade.py's strengths apply to pictures of 256 px, which show an enlarged face
        if rng.random() < how.toned:
            scene = tone(scene, rng, 1.2)
        if rng.random() < how.night:
            scene = noise(night(scene, rng), float(rng.uniform(0, 0.5)), float(rng.random()), _seed(rng))
        if rng.random() < how.blurred:
            scene = blur(scene, float(rng.uniform(0, 0.6)) / unit, float(rng.random()), _seed(rng))
        if rng.random() < how.small_camera:
            scene = lowres(scene, float(rng.uniform(0, 0.35)), float(rng.random()), _seed(rng))
        if rng.random() < how.noisy:
            scene = noise(scene, float(rng.uniform(0, 0.6)), float(rng.random()), _seed(rng))
        if rng.random() < how.coded:
            scene = jpeg(scene, float(rng.uniform(0, 0.9)), float(rng.random()), _seed(rng))
        if rng.random() < how.grey:
            scene = greyscale(scene)
        return np.ascontiguousarray(scene)


def split(rng: np.random.Generator, width: int, height: int, least: int = 48) -> list[tuple[int, int, int, int]]:
    """Cells (x1, y1, x2, y2) that tile a scene; the largest cell is repeatedly cut in two at a random place."""
    cells, ready = [(0, 0, width, height)], []
    aim = int(rng.integers(2, 10))
    while cells and len(cells) + len(ready) < aim:
        cells.sort(key=lambda c: (c[2] - c[0]) * (c[3] - c[1]))
        x1, y1, x2, y2 = cells.pop()
        across = (x2 - x1) >= (y2 - y1)
        length = x2 - x1 if across else y2 - y1
        if length < 2 * least:
            ready.append((x1, y1, x2, y2))
            continue
        cut = int(rng.integers(least, length - least + 1))
        cells += (
            [(x1, y1, x1 + cut, y2), (x1 + cut, y1, x2, y2)]
            if across
            else [(x1, y1, x2, y1 + cut), (x1, y1 + cut, x2, y2)]
        )
    return cells + ready


def turn(rng: np.random.Generator, share: float, degrees: float) -> np.ndarray:
    """A rotation [2, 2], in this share of the cases by a random angle with this standard deviation, otherwise by 0."""
    turned = rng.random() < share
    angle = np.deg2rad(np.clip(rng.normal(0, degrees), -40, 40)) if turned else 0.0
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def mirror(rows: np.ndarray, width: float) -> np.ndarray:
    """The faces of a picture of this width after mirroring; left and right landmarks are swapped."""
    turned = rows.copy()
    turned[:, 0], turned[:, 2] = width - rows[:, 2], width - rows[:, 0]
    points = rows[:, POINTS].reshape(-1, 5, 2)[:, MIRRORED].copy()
    points[..., 0] = width - 1 - points[..., 0]
    turned[:, POINTS] = points.reshape(-1, 10)
    return turned


def move(rows: np.ndarray, spin: np.ndarray, scale: float, shift: np.ndarray) -> np.ndarray:
    """Faces rotated by `spin` [2, 2], scaled and shifted; boxes stay upright and only their centres are rotated."""
    moved = rows.copy()
    centres = (rows[:, :2] + rows[:, 2:4]) / 2 * scale @ spin.T + shift
    half = (rows[:, 2:4] - rows[:, :2]) / 2 * scale
    moved[:, BOX] = np.concatenate([centres - half, centres + half], axis=1)
    # Landmark coordinates refer to pixel centres, box coordinates to pixel edges.
    points = (rows[:, POINTS].reshape(-1, 5, 2) + 0.5) * scale @ spin.T + shift - 0.5
    moved[:, POINTS] = points.reshape(-1, 10)
    moved[:, HAS_POINTS] = rows[:, HAS_POINTS]
    return moved


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 30))
