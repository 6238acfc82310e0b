"""Training batches. They depend only on seed and step, so that a stopped run can be resumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from models.common.degrade import Degradation, draw_mixture, draw_single, tone
from models.common.images import decode_rgb, encode_jpeg
from models.common.painted import draw_painting
from models.common.regions import blend, draw_swap
from models.common.veils import mild_grain
from models.ifqa.graded import GradedSizes, draw_series
from models.ifqa.steady import draw_twins

SIDE = 256
MAP_SIDE = 64
LEAST_GAMMA = 0.9
"""Minimum gamma when the tone of a clean face is changed. With a lower gamma, the face would be so bright that it would
count as degraded (camera.light)."""
SWAP_KINDS = {"noise": 0.45, "jpeg": 0.27, "blur": 0.12, "sharpen": 0.16}


@dataclass(frozen=True)
class BatchSizes:
    """Number of pictures of each kind in one step (config.toml, [batch])."""

    pairs: int
    swaps: int
    restored: int
    restored_swaps: int
    graded_groups: int
    graded_faces: int
    graded_severities: int
    steady: int
    kept: int
    unreal: int
    graded_veils: int = 1
    everyday: int = 0

    def __post_init__(self) -> None:
        if self.graded_groups * self.graded_faces > self.pairs or max(self.kept, self.unreal) > self.pairs:
            raise ValueError("graded_groups * graded_faces, kept and unreal may each be at most as large as pairs")


class Batches:
    """Map-style data set: `batches[step]` is a dict of arrays.

    hq, lq: uint8 [pairs, 256, 256, 3] RGB, the same faces clean and degraded;
    swap, swap_label, swap_face, swap_clean: region-swapped pictures (FPRS), their label maps float32 [S, 64, 64]
    (1 = clean pixels), the index of their face in hq, and whether the face is clean with degraded regions;
    restored_mask: float32 [restored_swaps, 256, 256], regions to be taken from a generator's output;
    graded, veiled and the arrays that describe them: see graded.draw_series;
    steady, again: uint8 [steady, 256, 256, 3], two crops of the same faces from the same frames;
    kept: uint8 [kept, 256, 256, 3], the first faces of hq with mild grain, which should hardly lower their score;
    unreal: uint8 [unreal, 256, 256, 3], pictures that are not photographs: drawings, renders, and painted-over faces;
    everyday: uint8 [everyday, 256, 256, 3], photographs and video frames of everyday quality, neither clean nor ruined.
    """

    def __init__(
        self,
        faces: np.ndarray,
        indexes: np.ndarray,
        sizes: BatchSizes,
        seed: int,
        unreal: np.ndarray | None = None,
        films: np.ndarray | None = None,
        everyday: np.ndarray | None = None,
    ) -> None:
        """faces: uint8 [n, side, side, 3] with side >= 256; indexes: faces that may be used.

        unreal: faces that are not photographs, in the same form; everyday: faces from everyday photographs, in
        the same form, required if `sizes.everyday` is not 0; films: uint8 [n, 1 + levels, 256, 256, 3], clean faces
        and their copies that video encoders compressed, with increasing severity (films.py).
        """
        self.faces, self.indexes, self.sizes, self.seed = faces, indexes, sizes, seed
        self.unreal, self.films, self.everyday = unreal, films, everyday
        if sizes.everyday and everyday is None:
            raise ValueError("sizes.everyday is not 0, but there are no everyday photographs")

    def __getstate__(self) -> dict[str, Any]:
        # A loader process opens the memory maps itself, because pickling them would copy gigabytes.
        return {k: (str(v.filename), v.shape) if isinstance(v, np.memmap) else v for k, v in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name in ("faces", "unreal", "films", "everyday"):
            if isinstance(state[name], tuple):
                path, shape = state[name]
                state[name] = np.memmap(path, np.uint8, "r", shape=shape)
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
        sizes_of_series = GradedSizes(
            sizes.graded_groups, sizes.graded_faces, sizes.graded_severities, sizes.graded_veils
        )
        batch |= draw_series(base, sizes_of_series, rng, self.films)
        # Some clean faces are slightly compressed at the end, because real clean faces come from files, too.
        batch["hq"] = np.stack([store(face, rng) for face in base])
        masks = [draw_swap(rng, SIDE) for _ in range(sizes.restored_swaps)]
        batch["restored_mask"] = np.stack(masks) if masks else np.zeros((0, SIDE, SIDE), np.float32)
        twins = [draw_twins(self.faces[i], SIDE, rng) for i in rng.choice(self.indexes, sizes.steady)]
        batch["steady"], batch["again"] = (np.stack(side) for side in zip(*twins, strict=True))
        batch["kept"] = np.stack([mild_grain(face, rng) for face in base[: sizes.kept]])
        batch["unreal"] = self._unreal(base, rng)
        batch["everyday"] = self._everyday(rng)
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
                # A single kind, most often noise: noise in the whole picture is so easy to detect that the network
                # would not learn to find it in one place.
                kind = str(rng.choice(list(SWAP_KINDS), p=list(SWAP_KINDS.values())))
                low = draw_single(rng, kind).apply(base[k], float(rng.uniform(0.35, 0.9)))
            # Two of three pictures are clean faces with degraded regions, which the other parts of a batch rarely have.
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

    def _everyday(self, rng: np.random.Generator) -> np.ndarray:
        if self.everyday is None or not self.sizes.everyday:
            return np.zeros((0, SIDE, SIDE, 3), np.uint8)
        chosen = rng.integers(len(self.everyday), size=self.sizes.everyday)
        return np.stack([store(draw_clean(self.everyday[i], rng), rng) for i in chosen])

    def _unreal(self, base: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """One of four pictures is a painted-over clean face, the others are from `unreal`. Without `unreal`, all are
        painted over.
        """
        pictures = []
        for i in range(self.sizes.unreal):
            if self.unreal is not None and i % 4:
                picture = draw_clean(self.unreal[rng.integers(len(self.unreal))], rng)
            else:
                picture = draw_painting(base[-1 - i], rng)
            pictures.append(mild_grain(picture, rng) if rng.random() < 0.3 else store(picture, rng))
        return np.stack(pictures)


def draw_low(rng: np.random.Generator) -> Degradation:
    """A degradation for a degraded copy: mostly a mixture, else smoothing, over-sharpening, compression or noise."""
    pick = rng.random()
    if pick < 0.12:
        return draw_single(rng, "denoise" if pick < 0.05 else "smooth")
    if pick < 0.22:
        return draw_single(rng, "sharpen")
    if pick < 0.33:
        return draw_single(rng, "jpeg")
    if pick < 0.40:
        return draw_single(rng, "noise")
    return draw_mixture(rng, 0.4)


def draw_clean(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The face, uint8 [256, 256, 3], randomly mirrored, shifted, zoomed, slightly rotated and with changed tones."""
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
    return tone(picture, rng, least_gamma=LEAST_GAMMA) if rng.random() < 0.8 else picture


def store(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The face as a file of good quality stores it: unchanged, or as a JPEG of quality 93..98."""
    if rng.random() < 0.6:
        return face
    coded = decode_rgb(encode_jpeg(face, int(rng.integers(93, 99)), chroma_444=bool(rng.random() < 0.4)))
    assert coded is not None
    return coded
