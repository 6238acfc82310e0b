"""What the training log shows: rank correlations and other results on held-out faces, by kind of degradation."""

from __future__ import annotations

import numpy as np

from models.common.degrade import Degradation, Step
from models.common.images import shrink_square
from models.common.regions import REGIONS, blend, region_mask
from models.common.stats import auc, spearman_across, spearman_rows
from models.common.veils import VEILS
from models.ifqa.batches import SIDE
from models.ifqa.steady import cut, draw_frame
from models.ifqa.trainer import Trainer
from streamgate.convert.ifqa import face_ellipse

SEVERITIES = (0.12, 0.28, 0.44, 0.6, 0.76, 0.92)
CHAINS: dict[str, tuple[str, ...]] = {
    "blur": ("blur",),
    "noise": ("noise",),
    "lowres": ("lowres",),
    "jpeg": ("jpeg",),
    "mixture": ("blur", "lowres", "noise", "jpeg"),
    "footage": ("footage",),
    "denoise": ("denoise",),
    "sharpen": ("sharpen",),
    "motion": ("motion",),
    "sensor": ("sensor",),
    "light": ("light",),
    "smooth": ("smooth",),
}
VEILED_KINDS = ("blur", "motion", "lowres", "jpeg", "smooth")
VEILED_FACES, VEILED_SEVERITIES, VEIL_STRENGTH = 10, (0.3, 0.6, 0.9), 0.5
VEIL_SLACK = 0.02
"""Tolerated increase of the score under a veil."""
MILD_GRAIN = 0.12
"""Severity at which noise has a standard deviation of 3 levels."""
FEW = 24
"""Number of held-out faces that are degraded."""
CUTS = 4
"""Number of crops of a face from the same frame, with which the stability of the score is measured."""


def series(kind: str, seed: int) -> Degradation:
    """The simplest variant of a kind, for example Gaussian blur, scaling down by area and up by cubic interpolation,
    white noise, or JPEG with 4:2:0. A mixture applies these four, each at 60 % of the severity.
    """
    share = 0.6 if kind == "mixture" else 1.0
    return Degradation(kind, tuple(Step(k, 0.25, seed, share) for k in CHAINS[kind]))


class Monitor:
    """Keeps the degraded pictures, so that a later evaluation only has to run the network."""

    def __init__(self, faces: np.ndarray, indexes: np.ndarray) -> None:
        """faces: the cache, uint8 [n, side, side, 3]; indexes: faces that are not used for training."""
        self.clean = np.stack([shrink_square(np.asarray(faces[i]), SIDE) for i in indexes])
        few = self.clean[:FEW]
        self.graded = {
            kind: np.stack([series(kind, 7 * i).apply(f, t) for i, f in enumerate(few) for t in SEVERITIES])
            for kind in CHAINS
        }
        ruined = [series("mixture", 7 * i).apply(f, 0.7) for i, f in enumerate(few)]
        self.low = np.stack(ruined)
        self.masks = {n: region_mask(n, SIDE) for n in REGIONS}
        noisy = [series("noise", 7 * i).apply(f, 0.6) for i, f in enumerate(few)]
        self.local = {
            n: np.stack([blend(f, r, m) for f, r in zip(few, ruined, strict=True)]) for n, m in self.masks.items()
        } | {
            f"{n}-noise": np.stack([blend(f, r, m) for f, r in zip(few, noisy, strict=True)])
            for n, m in self.masks.items()
        }
        self.kept = np.stack([series("noise", 7 * i).apply(f, MILD_GRAIN) for i, f in enumerate(few)])
        bare = {
            kind: [series(kind, 7 * i).apply(f, t) for i, f in enumerate(few[:VEILED_FACES]) for t in VEILED_SEVERITIES]
            for kind in VEILED_KINDS
        }
        self.bare = np.stack([p for pictures in bare.values() for p in pictures])
        self.veiled = {
            name: np.stack([veil(p, VEIL_STRENGTH, 0.3, 11) for p in self.bare]) for name, veil in VEILS.items()
        }
        rng = np.random.default_rng(0)
        frames = [draw_frame(np.asarray(faces[i]), rng) for i in indexes[:FEW]]
        self.cuts = np.stack([cut(frame, SIDE, rng) for frame in frames for _ in range(CUTS)])

    def look(self, trainer: Trainer) -> dict[str, float]:
        """The results for the log, by name.

        within.KIND, across.KIND: Spearman correlation of severity and score, within and across faces; local.NAME,
        order.NAME: share of the clean faces that score higher than their degraded or restored copies; map.NAME: pixel
        AUC of degraded regions; veil.NAME: share of degraded pictures whose score rises by at most VEIL_SLACK under the
        veil; under.NAME: Spearman correlation of severity and score under the veil.
        """
        clean = trainer.scores(self.clean)
        few = clean[:FEW]
        figures: dict[str, float] = {
            "clean": float(np.median(clean)),
            "clean_p10": float(np.quantile(clean, 0.1)),
        }
        severities = np.array(SEVERITIES)
        for kind, pictures in self.graded.items():
            scores = trainer.scores(pictures).reshape(len(few), -1)
            figures[f"within.{kind}"] = float(spearman_rows(scores, severities).mean())
            figures[f"across.{kind}"] = spearman_across(scores, severities)
            figures[f"median.{kind}"] = float(np.median(scores[:, -1]))
            figures[f"mild.{kind}"] = float((few > scores[:, 0]).mean())
        inside = face_ellipse(64) > 0.5
        for name, pictures in self.local.items():
            maps = trainer.maps(pictures)
            order = (maps * trainer.pool.cpu().numpy()).sum(axis=(1, 2))
            hit = (self.masks[name.split("-")[0]].reshape(64, 4, 64, 4).mean(axis=(1, 3)) > 0.5) & inside
            figures[f"local.{name}"] = float((few > order).mean())
            figures[f"map.{name}"] = float(np.mean([auc(1 - m[hit], 1 - m[inside & ~hit]) for m in maps]))
        for name, plain in (("restored", False), ("plain", True)):
            figures[f"order.{name}"] = float((few > trainer.scores(trainer.restore(self.low, plain))).mean())
        figures["kept"] = float(np.median(trainer.scores(self.kept)))
        bare = trainer.scores(self.bare)
        for name, pictures in self.veiled.items():
            under = trainer.scores(pictures)
            figures[f"veil.{name}"] = float((under <= bare + VEIL_SLACK).mean())
            ordered = spearman_rows(under.reshape(-1, len(VEILED_SEVERITIES)), np.array(VEILED_SEVERITIES))
            figures[f"under.{name}"] = float(ordered.mean())
        mirrored = trainer.scores(np.ascontiguousarray(self.clean[:, :, ::-1]))
        spread = trainer.scores(self.cuts).reshape(-1, CUTS).std(axis=1, ddof=1)
        figures["steady"], figures["steady_p90"] = float(np.median(spread)), float(np.quantile(spread, 0.9))
        figures["mirror"] = float(np.median(np.abs(mirrored - clean)))
        return figures


def table(figures: dict[str, float]) -> str:
    """The results as two lines for the log."""
    kinds = [k.split(".")[1] for k in figures if k.startswith("within.")]
    first = " ".join(
        f"{k} {figures[f'within.{k}']:.3f}/{figures[f'across.{k}']:.3f}"
        f"(m{figures[f'mild.{k}']:.2f},{figures[f'median.{k}']:.2f})"
        for k in kinds
    )
    rest = " ".join(
        f"{k} {v:.3f}" for k, v in figures.items() if k.split(".")[0] not in ("within", "across", "median", "mild")
    )
    return f"{first}\n    {rest}"
