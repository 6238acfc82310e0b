"""Series of pictures of one face under one degradation with increasing severity, with and without a veil that hides the
degradation.

The score must fall along both series, and must never be higher under the veil than without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models.common.degrade import Degradation, Step, draw_chain, draw_mixture, draw_single
from models.common.regions import blend, draw_swap
from models.common.severity import Picture
from models.common.veils import apply_veils, draw_veils

KINDS = {
    "jpeg": 0.09,
    "noise": 0.06,
    "mixture": 0.12,
    "blur": 0.07,
    "lowres": 0.08,
    "footage": 0.04,
    "films": 0.05,
    "codec": 0.08,
    "denoise": 0.02,
    "sharpen": 0.03,
    "motion": 0.09,
    "sensor": 0.04,
    "light": 0.11,
    "smooth": 0.12,
}
_COMPRESSED = ("sharp upscaling", "error diffusion", "vignette")
FAVOURED = {
    "jpeg": _COMPRESSED,
    "footage": _COMPRESSED,
    "films": _COMPRESSED,
    "codec": _COMPRESSED,
    "noise": ("vignette", "error diffusion"),
    "lowres": ("sharpening", "sharp upscaling"),
    "blur": ("sharpening", "sharp upscaling"),
    "motion": ("sharpening", "sharp upscaling"),
    "sensor": ("recompression", "sharpening"),
    "smooth": ("grain", "sharpening", "sharp upscaling", "error diffusion"),
    "denoise": ("sharpening", "error diffusion"),
}
"""For each kind of degradation, the veils that most often raise the score of a face that is degraded in this way."""
REGIONAL_SHARE = 0.15
"""Share of the series of REGIONAL_KINDS in which only one region of the face is degraded."""
REGIONAL_KINDS = ("blur", "motion", "noise", "smooth", "jpeg", "lowres", "sharpen")
BRIGHT = 0.3
"""A `shape` for which `camera.light_kind` returns "bright"."""
MILD_NOISE = 0.15
"""Severity of noise that is tolerated; series of noise start with it."""


@dataclass(frozen=True)
class GradedSizes:
    """Number of degradations, of faces with each degradation, of severities of each face, and of draws of veils for
    each series.
    """

    groups: int
    faces: int
    severities: int
    veils: int = 1


@dataclass(frozen=True)
class Reach:
    """How a kind's severities can be compared, and how far the score may fall.

    across: the same severity is equally bad on two faces; line: severities follow the line that all kinds share; span:
    share of the whole scale over which the score falls along the series, also on the line.
    """

    across: bool = True
    line: bool = True
    span: float = 1.0


REACHES = {
    "footage": Reach(span=0.5),  # a face in low-resolution footage is small, but usable: it must pass the gate
    "light": Reach(across=False, line=False, span=0.45),  # light skin in a dark picture may look like dark skin
    "sensor": Reach(line=False, span=0.7),  # the noise is present from the first level on
    "smooth": Reach(across=False, span=0.5),  # a smoothed face is often usable: its score must not fall to zero
    "films": Reach(across=False, line=False, span=0.6),
    "codec": Reach(across=False, span=0.55),
    "regional": Reach(across=False, line=False, span=0.35),
}


def draw_series(
    base: Sequence[Picture], sizes: GradedSizes, rng: np.random.Generator, films: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The arrays of a batch: G x F series of S severities, of the faces base[0 : G * F].

    graded: uint8 [G F S, 256, 256, 3]. One value per picture: graded_face; graded_group, the same for pictures whose
    severities can be compared; graded_t, the severity; graded_strength, the severity on the scale that all kinds share;
    graded_line and graded_span, see Reach. veiled: uint8 [G F V (S + 1), 256, 256, 3], each series under V draws of
    veils, each preceded by its clean face (severity 0); graded_veiled_of: int64 [G F V S], for each degraded picture in
    `veiled`, in order, the index in `graded` of the same picture without a veil. A series of films shows a face from
    `films` instead of `base`; its clean face is only in `veiled`.
    """
    names = ("graded", "face", "group", "t", "strength", "line", "span", "veiled", "veiled_of")
    out: dict[str, list] = {name: [] for name in names}
    for g in range(sizes.groups):
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        if kind == "films" and films is None:
            kind = "footage"
        regional = kind in REGIONAL_KINDS and rng.random() < REGIONAL_SHARE
        reach = REACHES.get("regional" if regional else kind, Reach())
        degradation = Degradation(kind) if kind == "films" else draw_kind(kind, rng)
        for f in range(sizes.faces):
            face = g * sizes.faces + f
            if kind == "films":
                assert films is not None
                clean, pictures, severities = film_series(films, sizes.severities, rng)
            else:
                clean = base[face]
                severities = draw_severities(rng, sizes.severities, degradation.round_severities())
                if kind == "light" and rng.random() < 0.5:
                    severities[0] = min(severities[0], float(rng.uniform(0, 0.12)))
                if kind == "noise":
                    severities = [MILD_NOISE + (1 - MILD_NOISE) * t for t in severities]
                change = _only_a_region(degradation, rng) if regional else degradation.apply
                pictures = [change(clean, t) for t in severities]
            first = len(out["graded"])
            out["graded"] += pictures
            for _ in range(sizes.veils):
                veils = draw_veils(rng, FAVOURED.get(kind, ()))
                out["veiled"] += [apply_veils(veils, picture) for picture in (clean, *pictures)]
                out["veiled_of"] += range(first, first + len(pictures))
            out["face"] += [face] * len(pictures)
            out["group"] += [g if reach.across else sizes.groups + face] * len(pictures)
            out["t"] += severities
            mild = MILD_NOISE if kind == "noise" else 0.0
            out["strength"] += [(t - mild) / (1 - mild) * degradation.strength * reach.span for t in severities]
            out["line"] += [float(reach.line)] * len(pictures)
            out["span"] += [reach.span] * len(pictures)
    kinds = {"face": np.int64, "group": np.int64, "veiled_of": np.int64}
    batch = {f"graded_{k}": np.array(v, kinds.get(k, np.float32)) for k, v in out.items() if k not in _PICTURES}
    return batch | {name: np.stack(out[name]) for name in _PICTURES}


_PICTURES = ("graded", "veiled")


def _only_a_region(degradation: Degradation, rng: np.random.Generator) -> Callable[[Picture, float], Picture]:
    mask = draw_swap(rng, 256)
    return lambda face, t: blend(face, degradation.apply(face, t), mask)


def film_series(films: np.ndarray, count: int, rng: np.random.Generator) -> tuple[Picture, list[Picture], list[float]]:
    """A random face of films [n, 1 + levels, 256, 256, 3]: clean, at `count` of its levels in order, and the severities
    of these levels.
    """
    film = films[int(rng.integers(len(films)))]
    levels = sorted(int(i) for i in rng.choice(np.arange(1, len(film)), count, replace=False))
    if rng.random() < 0.5:
        film = film[:, :, ::-1]
    pictures = [np.ascontiguousarray(film[i]) for i in (0, *levels)]
    return pictures[0], pictures[1:], [i / (len(film) - 1) for i in levels]


def draw_kind(kind: str, rng: np.random.Generator) -> Degradation:
    """A degradation of this kind. Two of five mixtures are the paper's chain; the others combine two or more kinds.
    Of the degradations of light, 35 % are bright, because bright light is the hardest to detect; the others are of all
    kinds of light, including bright light.
    """
    if kind == "light" and rng.random() < 0.35:
        return Degradation("light", (Step("light", BRIGHT, int(rng.integers(1 << 30))),))
    if kind != "mixture":
        return draw_single(rng, kind)
    return draw_chain(rng) if rng.random() < 0.4 else draw_mixture(rng, 0.5, minimum=2)


def draw_severities(rng: np.random.Generator, count: int, marked: Sequence[float] = ()) -> list[float]:
    """Ascending severities in 0..1, mostly from `marked` if it has enough values, else spaced widely or closely."""
    if len(marked) >= count and rng.random() < 0.8:
        return sorted(float(t) for t in rng.choice(marked, count, replace=False))
    if rng.random() < 0.6:
        return [float((i + rng.random()) / count) for i in range(count)]
    gaps = rng.uniform(0.08, 0.2, count)
    start = float(rng.uniform(0, 1 - gaps[1:].sum()))
    return [start + float(gaps[1 : i + 1].sum()) for i in range(count)]
