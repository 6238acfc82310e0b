"""Training batches: a pure function of (seed, step), so that a run resumes where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from models.common.degrade import Degradation, draw_chain, draw_mixture, draw_single, tone
from models.common.images import decode_rgb, encode_jpeg
from models.common.regions import blend, draw_swap
from models.ifqa.steady import draw_twins

SIDE = 256
MAP_SIDE = 64
GRADED_KINDS = {
    "jpeg": 0.15,
    "noise": 0.10,
    "mixture": 0.38,
    "blur": 0.07,
    "lowres": 0.17,
    "footage": 0.05,
    "denoise": 0.04,
    "sharpen": 0.04,
}
SWAP_KINDS = {"noise": 0.33, "jpeg": 0.35, "blur": 0.18, "sharpen": 0.14}


@dataclass(frozen=True)
class BatchSizes:
    """How many pictures of each sort one step sees (config.toml, [batch])."""

    pairs: int
    swaps: int
    restored: int
    restored_swaps: int
    graded_groups: int
    graded_faces: int
    graded_severities: int
    steady: int

    def __post_init__(self) -> None:
        if self.graded_groups * self.graded_faces > self.pairs:
            raise ValueError("graded_groups * graded_faces must not exceed pairs")


class Batches:
    """Map-style data set: `batches[step]` is a dict of arrays.

    hq, lq: uint8 [pairs, 256, 256, 3] RGB, the same faces clean and degraded;
    swap, swap_label, swap_face, swap_clean: FPRS pictures, their label maps float32 [S, 64, 64] (1 = clean
    pixels), the index of their face in hq, and whether the face is clean with degraded regions;
    restored_mask: uint8 [restored_swaps, 256, 256], regions to be taken from a generator;
    graded, graded_face, graded_group, graded_t, graded_strength: series of one degradation at several severities,
    and how severe that chain is among chains;
    steady, again: uint8 [steady, 256, 256, 3], the same faces of the same frames cut out twice.
    """

    def __init__(self, faces: np.ndarray, indexes: np.ndarray, sizes: BatchSizes, seed: int) -> None:
        """faces: uint8 [n, side, side, 3] with side >= 256; indexes: those that may be used."""
        self.faces, self.indexes, self.sizes, self.seed = faces, indexes, sizes, seed

    def __getstate__(self) -> dict[str, Any]:
        # A loader process opens the memory map itself: pickling it would copy gigabytes.
        state = dict(self.__dict__)
        if isinstance(self.faces, np.memmap):
            state["faces"] = (str(self.faces.filename), self.faces.shape)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["faces"], tuple):
            path, shape = state["faces"]
            state["faces"] = np.memmap(path, np.uint8, "r", shape=shape)
        self.__dict__ = state

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self.seed, step))
        sizes = self.sizes
        chosen = rng.choice(self.indexes, sizes.pairs, replace=len(self.indexes) < sizes.pairs)
        base = [draw_clean(self.faces[i], rng) for i in chosen]
        degraded = [draw_low(rng).apply(face, float(rng.uniform(0.35, 1.0))) for face in base]
        batch: dict[str, np.ndarray] = {"lq": np.stack(degraded)}
        batch |= self._swaps(base, degraded, rng)
        batch |= self._graded(base, rng)
        # Light coding of clean files comes last: a clean face is a stored picture too.
        batch["hq"] = np.stack([store(face, rng) for face in base])
        masks = [draw_swap(rng, SIDE) for _ in range(sizes.restored_swaps)]
        batch["restored_mask"] = np.stack(masks) if masks else np.zeros((0, SIDE, SIDE), np.float32)
        twins = [draw_twins(self.faces[i], SIDE, rng) for i in rng.choice(self.indexes, sizes.steady)]
        batch["steady"], batch["again"] = (np.stack(side) for side in zip(*twins, strict=True))
        return batch

    def _swaps(
        self, base: list[np.ndarray], degraded: list[np.ndarray], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        pictures, labels, face, clean = [], [], [], []
        for i in range(self.sizes.swaps):
            k = i % self.sizes.pairs
            mask = draw_swap(rng, SIDE)
            low = degraded[k]
            if i % 2:
                # One kind alone, noise most often: across a whole picture it is so easy to see that nothing else
                # would teach the network to look for it in one place.
                kind = str(rng.choice(list(SWAP_KINDS), p=list(SWAP_KINDS.values())))
                low = draw_single(rng, kind).apply(base[k], float(rng.uniform(0.35, 0.9)))
            # Two in three keep the clean face and degrade regions of it: rarer in the other branches.
            onto_clean = i % 3 != 2
            pair = (base[k], low) if onto_clean else (low, base[k])
            pictures.append(blend(*pair, mask))
            share = cv2.resize(mask, (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_AREA)
            labels.append(1 - share if onto_clean else share)
            face.append(k)
            clean.append(onto_clean)
        return {
            "swap": np.stack(pictures),
            "swap_label": np.stack(labels).astype(np.float32),
            "swap_face": np.array(face, np.int64),
            "swap_clean": np.array(clean),
        }

    def _graded(self, base: list[np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        sizes = self.sizes
        pictures, face, group, severity, strength = [], [], [], [], []
        for g in range(sizes.graded_groups):
            kind = str(rng.choice(list(GRADED_KINDS), p=list(GRADED_KINDS.values())))
            degradation = draw_graded(kind, rng)
            for f in range(sizes.graded_faces):
                k = g * sizes.graded_faces + f
                for t in draw_severities(rng, sizes.graded_severities, degradation.round_severities()):
                    pictures.append(degradation.apply(base[k], t))
                    face.append(k)
                    group.append(g)
                    severity.append(t)
                    strength.append(t * degradation.strength)
        return {
            "graded": np.stack(pictures),
            "graded_face": np.array(face, np.int64),
            "graded_group": np.array(group, np.int64),
            "graded_t": np.array(severity, np.float32),
            "graded_strength": np.array(strength, np.float32),
        }


def draw_graded(kind: str, rng: np.random.Generator) -> Degradation:
    """A degradation of that kind; of mixtures two in five are the paper's chain, the others any two or more kinds."""
    if kind != "mixture":
        return draw_single(rng, kind)
    return draw_chain(rng) if rng.random() < 0.4 else draw_mixture(rng, 0.5, minimum=2)


def draw_severities(rng: np.random.Generator, count: int, marked: Sequence[float] = ()) -> list[float]:
    """Ascending severities in 0..1: mostly of `marked` if there are enough of them, else spread widely or close."""
    if len(marked) >= count and rng.random() < 0.8:
        return sorted(float(t) for t in rng.choice(marked, count, replace=False))
    if rng.random() < 0.6:
        return [float((i + rng.random()) / count) for i in range(count)]
    gaps = rng.uniform(0.08, 0.2, count)
    start = float(rng.uniform(0, 1 - gaps[1:].sum()))
    return [start + float(gaps[1 : i + 1].sum()) for i in range(count)]


def draw_low(rng: np.random.Generator) -> Degradation:
    """What makes a low-quality twin: mostly mixtures, some footage, smoothing and over-sharpening."""
    pick = rng.random()
    if pick < 0.12:
        return draw_single(rng, "footage")
    if pick < 0.22:
        return draw_single(rng, "denoise")
    if pick < 0.29:
        return draw_single(rng, "sharpen")
    if pick < 0.41:
        return draw_single(rng, "jpeg")
    if pick < 0.48:
        return draw_single(rng, "noise")
    return draw_mixture(rng, 0.4)


def draw_clean(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [256, 256, 3]: the face mirrored, shifted, zoomed, turned a little and toned."""
    side = face.shape[0]
    picture = np.asarray(face)
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    picture = np.ascontiguousarray(picture)
    if side > SIDE:
        if rng.random() < 0.25:
            turn = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.normal(0, 4)), 1.0)
            picture = cv2.warpAffine(picture, turn, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        window = round(side * float(rng.uniform(0.9, 1.0)))
        window = max(window, SIDE)
        top, left = (int(rng.integers(side - window + 1)) for _ in range(2))
        filters = (cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
        picture = cv2.resize(
            picture[top : top + window, left : left + window],
            (SIDE, SIDE),
            interpolation=filters[int(rng.integers(len(filters)))],
        )
    return tone(picture, rng) if rng.random() < 0.8 else picture


def store(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The face as a good file would carry it: untouched, or JPEG of quality 93..98."""
    if rng.random() < 0.6:
        return face
    coded = decode_rgb(encode_jpeg(face, int(rng.integers(93, 99)), chroma_444=bool(rng.random() < 0.4)))
    assert coded is not None
    return coded
