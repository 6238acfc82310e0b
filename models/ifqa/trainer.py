"""One IFQA training run: the discriminator, its teacher, two restorers, their optimisers, and checkpoints."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.common.training import floats, halved, update_average
from models.ifqa.batches import MAP_SIDE
from models.ifqa.generator import Restorer, as_stored
from models.ifqa.losses import (
    anchor_loss,
    graded_pairs,
    lsgan,
    rank_loss,
    score_logit,
    teacher_loss,
    veil_loss,
)
from streamgate.convert.ifqa import SLIM, SMALL, Ifqa, face_ellipse

# The losses include slightly more than the ellipse of the score (hairline, ears, jaw), but not the background.
LOSS_ELLIPSE = (0.5, 0.56, 0.35, 0.42)


@dataclass(frozen=True)
class Settings:
    """Loss weights and optimiser settings of config.toml, [loss] and [optimiser]."""

    pixel: float
    feature: float
    rank: float
    rank_margin: float
    mirror: float
    steady: float
    anchor: float
    anchor_start: float
    anchor_fall: float
    graded_fake_from: float
    veil: float
    veiled_rank: float
    keep: float
    keep_above: float
    unreal: float
    teacher: float
    teacher_until: int
    steps: int
    warmup: int
    decay: int
    rate: float
    generator_rate: float
    generator_every: int
    ema: float
    real: float = 1.0
    veil_points: float = 0.0
    everyday: float = 1.0
    everyday_floor: float = -3.5


def bf16_is_faster(device: torch.device) -> bool:
    """Measure whether a typical convolution, forward and backward, is faster under bfloat16 autocast than in float32.

    On CUDA, return whether bfloat16 is supported, without measuring.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    conv = torch.nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(8, 64, 64, 64).to(memory_format=torch.channels_last).requires_grad_()
    best = {False: float("inf"), True: float("inf")}
    # The two are measured in turns, and the best time of each counts, because other processes may share the machine.
    for _ in range(20):
        for enabled in best:
            start = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                y = conv(x)
            y.float().square().mean().backward()
            best[enabled] = min(best[enabled], time.perf_counter() - start)
    return best[True] < 0.9 * best[False]


def to_input(pictures: Any, device: torch.device) -> Tensor:
    """The network's input, float32 [N, 3, 256, 256] in -1..1, channels last; pictures: uint8 [N, 256, 256, 3] RGB."""
    tensor = torch.as_tensor(np.asarray(pictures)).to(device).permute(0, 3, 1, 2)
    return (tensor.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


UNREAL_DEPTH = 5.0
"""A picture that is not a photograph should get a score logit below the negative of this value (realness below 1 %)."""


VEIL_POINTS = 0.5
"""Points (0..100) by which a veil may raise the score in training without a loss; the evaluation allows 2 points."""
POINTS_X0, POINTS_W = 0.376, 0.171
"""x0 and w of an earlier run's calibration, with which scores are mapped to points."""


class Trainer:
    """State of a run; `step(batch)` advances it by one step and returns its loss terms."""

    def __init__(self, settings: Settings, restored: int, seed: int, device: torch.device, half: bool) -> None:
        """restored: number of degraded copies per step that are restored as a whole; half: use bfloat16 autocast."""
        torch.manual_seed(seed)
        self.settings, self.restored, self.device, self.half = settings, restored, device, half
        self.steps_done = 0
        last = torch.channels_last
        self.network = Ifqa(SMALL).to(device, memory_format=last)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.teacher: Ifqa | None = None
        self.restorer = Restorer(64).to(device, memory_format=last)
        # A second, smaller restorer is trained on the squared error only, so that there are two styles of restoration.
        self.plain = Restorer(32).to(device, memory_format=last)
        self.optimiser = torch.optim.Adam(self.network.parameters(), settings.rate, betas=(0.9, 0.99))
        both = [*self.restorer.parameters(), *self.plain.parameters()]
        self.generator_optimiser = torch.optim.Adam(both, settings.generator_rate, betas=(0.5, 0.99))
        self.face = torch.from_numpy(face_ellipse(MAP_SIDE, LOSS_ELLIPSE)).to(device)
        pool = torch.from_numpy(face_ellipse(MAP_SIDE)).to(device)
        self.pool = pool / pool.sum()

    # --- one step -------------------------------------------------------------------------------------------

    def step(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """Update the discriminator and, every `generator_every` steps, both restorers; returns the loss terms."""
        hq, lq = to_input(batch["hq"], self.device), to_input(batch["lq"], self.device)
        self._set_rates()
        figures = self._discriminator_step(batch, hq, lq)
        if self.steps_done % self.settings.generator_every == 0:
            figures |= self._generator_step(hq, lq)
        self.steps_done += 1
        update_average(self.average, self.network, self.settings.ema, self.steps_done)
        return figures

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half)

    def _discriminator_step(self, batch: Mapping[str, Any], hq: Tensor, lq: Tensor) -> dict[str, float]:
        restored, restored_swap, masks = self._restored(batch, hq, lq)
        swap, graded, veiled, steady, again, kept, unreal, everyday = (
            to_input(batch[name], self.device)
            for name in ("swap", "graded", "veiled", "steady", "again", "kept", "unreal", "everyday")
        )
        mirrored = torch.cat([hq[:3], graded[::4]]).flip(-1)
        parts = [hq, lq, swap, restored, restored_swap, graded, veiled, mirrored, steady, again, kept, unreal, everyday]
        sizes = [len(p) for p in parts]
        self.network.train()
        with self._autocast():
            logits = self.network(torch.cat(parts).contiguous(memory_format=torch.channels_last))[:, 0]
        (
            on_hq,
            on_lq,
            on_swap,
            on_restored,
            on_restored_swap,
            on_graded,
            on_veiled,
            on_mirrored,
            on_steady,
            on_again,
            on_kept,
            on_unreal,
            on_everyday,
        ) = logits.float().split(sizes)

        zero = torch.zeros((), device=self.device)
        series = {k: torch.as_tensor(v).to(self.device) for k, v in batch.items() if k.startswith("graded_")}
        severity, on_the_line = series["graded_t"], series["graded_line"]
        # Faces with a degraded region, a shadow or light smoothing are ranked, but not labelled fake as a whole.
        counted = (severity >= self.settings.graded_fake_from) & (series["graded_span"] == 1)
        of = series["graded_veiled_of"]
        ruined = _with_the_clean_face(counted[of], len(veiled))[:, None, None].float()
        counted = counted[:, None, None].float()
        small = F.interpolate(masks[:, None], size=(MAP_SIDE, MAP_SIDE), mode="area")[:, 0]
        swap_label = torch.as_tensor(batch["swap_label"]).to(self.device)
        settings = self.settings
        terms = {
            "real": settings.real * lsgan(on_hq, zero + 1, self.face),
            "low": 0.7 * lsgan(on_lq, zero, self.face),
            # A degraded region is a small part of its picture, so its pixels have a higher weight.
            "swap": 1.5 * lsgan(on_swap, swap_label, self.face * (5 - 4 * swap_label)),
            "restored": lsgan(on_restored, zero, self.face),
            "restored_swap": 0.5 * lsgan(on_restored_swap, 1 - small, self.face),
            "graded": 0.5 * lsgan(on_graded, zero, self.face * counted),
            "veiled": 0.5 * lsgan(on_veiled, zero, self.face * ruined),
            "rank": settings.rank
            * self._ranking(batch, on_hq, on_lq, on_swap, on_restored, on_restored_swap, on_graded, series),
        }
        scores, veiled_scores, kept_scores = (self._score(x) for x in (on_graded, on_veiled, on_kept))
        strength = series["graded_strength"].clamp_max(1.2)
        line = anchor_loss(scores, strength, settings.anchor_start, settings.anchor_fall, on_the_line)
        terms["anchor"] = settings.anchor * line
        bare = {k: v[of] for k, v in series.items() if k != "graded_veiled_of"}
        terms |= self._veils(scores[of], veiled_scores, strength[of], bare)
        # Grain is tolerated, but not rewarded; otherwise grain on one part of a face would raise the score.
        gained = F.relu(kept_scores - self._score(on_hq)[: len(kept_scores)].detach())
        terms["keep"] = settings.keep * (F.relu(settings.keep_above - kept_scores) + gained).mean()
        terms["mirror"] = settings.mirror * self._apart(torch.cat([on_hq[:3], on_graded[::4]]), on_mirrored)
        terms["steady"] = settings.steady * self._apart(on_steady, on_again)
        # Pictures that are not photographs must score as low as ruined ones. LSGAN would not lower them that far.
        terms["unreal"] = settings.unreal * F.softplus(self._score(on_unreal) + UNREAL_DEPTH).mean()
        # A soft or dark photograph may score low, but not as low as a picture that is not a photograph.
        below = F.relu(settings.everyday_floor - self._score(on_everyday))
        terms["everyday"] = settings.everyday * below.sum() / max(1, len(below))
        if self.teacher is not None and self.steps_done < settings.teacher_until:
            share = 1 - self.steps_done / settings.teacher_until
            told = self._told(torch.cat([hq, lq, swap]))
            known = torch.cat([on_hq, on_lq, on_swap])
            terms["teacher"] = settings.teacher * share * teacher_loss(known, told, self.face, SMALL.temperature)
        loss = torch.stack([t.reshape(()) for t in terms.values()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        return {k: float(v.detach()) for k, v in terms.items()}

    def _score(self, logits: Tensor) -> Tensor:
        """Logits of the exported scores, [N]."""
        return score_logit(logits, self.pool, self.network.spec.temperature)

    @torch.no_grad()
    def _told(self, pictures: Tensor) -> Tensor:
        """The teacher's logits, [N, 64, 64]."""
        assert self.teacher is not None
        with self._autocast():
            return self.teacher(pictures.contiguous(memory_format=torch.channels_last))[:, 0].float()

    def _veils(
        self, scores: Tensor, veiled: Tensor, strength: Tensor, series: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Losses for series under a veil, which must score no higher than without the veil and than the line of their
        severity, and must have the same order.

        scores: [G F V S], without the veil; veiled: [G F V (S + 1)], each series preceded by its clean face. Scores,
        strength and the values of series are repeated for every draw of veils.
        """
        settings, span = self.settings, series["graded_span"]
        # The clean face, at severity 0, forms an additional pair with each picture of its series.
        times = _with_the_clean_face(series["graded_t"], len(veiled))
        behind = _with_the_clean_face(torch.ones_like(span), len(veiled)) == 1
        count = len(veiled) - len(scores)
        own = torch.arange(count, device=times.device).repeat_interleave(len(veiled) // count)
        milder, stronger = graded_pairs(own, times, own)
        reach = span.reshape(count, -1)[own, 0]
        # Under a veil, all scores are low already, so half the margin is enough.
        margin = 0.5 * settings.rank_margin * reach[milder] * (times[stronger] - times[milder])
        line = settings.anchor_start - settings.anchor_fall * strength
        above = F.relu(veiled[behind] - line) * series["graded_line"]
        excess = F.relu(self._points(veiled[behind]) - self._points(scores.detach()) - VEIL_POINTS)
        return {
            "veil": settings.veil * veil_loss(scores, veiled[behind]),
            "veil_points": settings.veil_points * excess.mean() / 10,
            "veiled_line": settings.anchor * F.smooth_l1_loss(above, torch.zeros_like(above)),
            "veiled_rank": settings.veiled_rank * rank_loss(veiled[milder], veiled[stronger], margin),
        }

    def _points(self, logits: Tensor) -> Tensor:
        """Score logits as points, 0..100, the scale of the gate's limit, by an earlier run's calibration."""
        return 100 * torch.sigmoid((torch.sigmoid(logits) - POINTS_X0) / POINTS_W)

    def _apart(self, logits: Tensor, others: Tensor) -> Tensor:
        """Mean difference between the scores of pictures and of their counterparts (mirror images or second crops)."""
        heat = self.network.spec.temperature
        scores = [(torch.sigmoid(x / heat) * self.pool).sum(dim=(1, 2)) for x in (logits, others)]
        return (scores[0] - scores[1]).abs().mean()

    def _restored(self, batch: Mapping[str, Any], hq: Tensor, lq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Restored copies, clean faces with restored regions, and the masks of these regions."""
        masks = torch.as_tensor(batch["restored_mask"]).to(self.device).float()
        swaps, whole = len(masks), self.restored
        with torch.no_grad(), self._autocast():
            source = torch.cat([lq[:whole], lq[len(lq) - swaps :]])
            half = len(source) // 2
            # The restorers take turns with the two halves, so that both get every kind of degraded copy.
            first, second = (self.restorer, self.plain) if self.steps_done % 2 else (self.plain, self.restorer)
            out = as_stored(torch.cat([first(source[:half]), second(source[half:])]))
        region = masks[:, None]
        mixed = as_stored(hq[len(hq) - swaps :] * (1 - region) + out[whole:] * region)
        return out[:whole], mixed, masks

    def _ranking(
        self,
        batch: Mapping[str, Any],
        on_hq: Tensor,
        on_lq: Tensor,
        on_swap: Tensor,
        on_restored: Tensor,
        on_restored_swap: Tensor,
        on_graded: Tensor,
        series: Mapping[str, Tensor],
    ) -> Tensor:
        """Loss for the order of the scores: clean > region-swapped > degraded, and falling along each graded series."""
        hq, lq, swap, graded = (self._score(x) for x in (on_hq, on_lq, on_swap, on_graded))
        restored, restored_swap = self._score(on_restored), self._score(on_restored_swap)
        face = torch.as_tensor(batch["swap_face"]).to(self.device)
        clean = torch.as_tensor(batch["swap_clean"]).to(self.device)
        severity, graded_face = series["graded_t"], series["graded_face"]
        margin = self.settings.rank_margin * series["graded_span"]
        milder, stronger = graded_pairs(series["graded_group"], severity, graded_face)
        return (
            rank_loss(hq, lq, 1.0)
            + rank_loss(hq[face[clean]], swap[clean], 0.5)
            + rank_loss(swap[clean], lq[face[clean]], 0.25)
            + rank_loss(hq[: len(restored)], restored, 0.5)
            + rank_loss(hq[len(hq) - len(restored_swap) :], restored_swap, 0.25)
            + rank_loss(hq[graded_face], graded, 0.3 + margin * severity)
            + 3 * rank_loss(graded[milder], graded[stronger], margin[milder] * (severity[stronger] - severity[milder]))
        ) / 9

    def _generator_step(self, hq: Tensor, lq: Tensor) -> dict[str, float]:
        self.average.eval()
        with self._autocast():
            restored, plain = self.restorer(lq), self.plain(lq)
            with torch.no_grad():
                wanted = self.average.encode(hq)
            levels = self.average.encode(restored)
            logits = self.average.decode(levels)[:, 0].float()
        pixel = torch.sqrt((restored.float() - hq) ** 2 + 1e-6).mean()
        # Instead of VGG's features: activations of the averaged discriminator's encoder, each divided by its magnitude.
        feature = sum(
            (a.float() - b.float()).abs().mean() / b.float().abs().mean().clamp_min(1e-3)
            for a, b in zip(levels, wanted, strict=True)
        ) / len(levels)
        fool = lsgan(logits, torch.ones((), device=self.device), self.face)
        squared = F.mse_loss(plain.float(), hq)
        loss = self.settings.pixel * (pixel + squared) + self.settings.feature * feature + fool
        self.generator_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.generator_optimiser.param_groups[0]["params"], 20.0)
        self.generator_optimiser.step()
        return {
            "pixel": float(pixel.detach()),
            "feature": float(feature.detach()),
            "fool": float(fool.detach()),
        }

    def _set_rates(self) -> None:
        s = self.settings
        factor = min(1.0, (self.steps_done + 1) / s.warmup)
        factor *= max(0.05, min(1.0, (s.steps - self.steps_done) / s.decay))
        self.optimiser.param_groups[0]["lr"] = s.rate * factor
        self.generator_optimiser.param_groups[0]["lr"] = s.generator_rate * factor

    # --- scoring, saving ------------------------------------------------------------------------------------

    @torch.no_grad()
    def maps(self, pictures: np.ndarray, chunk: int = 64) -> np.ndarray:
        """Realness maps of the averaged network, float32 [N, 64, 64], for pictures uint8 [N, 256, 256, 3]."""
        out = []
        for start in range(0, len(pictures), chunk):
            with self._autocast():
                logits = self.average(to_input(pictures[start : start + chunk], self.device))[:, 0]
            out.append(torch.sigmoid(logits.float() / self.average.spec.temperature).cpu().numpy())
        return np.concatenate(out)

    def scores(self, pictures: np.ndarray) -> np.ndarray:
        """Scores of the averaged network, float32 [N] in 0..1."""
        return (self.maps(pictures) * self.pool.cpu().numpy()).sum(axis=(1, 2))

    @torch.no_grad()
    def restore(self, pictures: np.ndarray, plain: bool = False, chunk: int = 32) -> np.ndarray:
        """Pictures uint8 [N, 256, 256, 3] after a restorer, as uint8; plain: the restorer with squared error only."""
        network = self.plain if plain else self.restorer
        out = []
        for start in range(0, len(pictures), chunk):
            with self._autocast():
                y = as_stored(network(to_input(pictures[start : start + chunk], self.device)))
            out.append(((y + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(out)

    def state(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        return {
            "step": self.steps_done,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "restorer": self.restorer.state_dict(),
            "plain": self.plain.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator_optimiser": self.generator_optimiser.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()` of an earlier run."""
        for name in ("network", "average", "restorer", "plain", "optimiser", "generator_optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.steps_done = int(state["step"])

    def warm_state(self) -> dict[str, dict[str, Tensor]]:
        """Half-precision weights of the discriminator and the restorers, which are committed for the next run."""
        nets = {"D": self.average, "restorer": self.restorer, "plain": self.plain}
        return {name: halved(network.state_dict()) for name, network in nets.items()}

    def load_warm(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Start from `warm_state()` of an earlier run, with fresh optimisers."""
        for name, nets in (
            ("D", (self.network, self.average)),
            ("restorer", (self.restorer,)),
            ("plain", (self.plain,)),
        ):
            state = floats(weights[name])
            for net in nets:
                net.load_state_dict(state)

    def average_with(self, weights: Mapping[str, Mapping[str, Tensor]], share: float) -> None:
        """Replace the averaged network by a weighted mean of itself and the network of another run's `warm_state()`.

        If both runs started from the same weights, the mean often has the strengths of both (Wortsman et al., Model
        soups, ICML 2022). share: weight of the other network, 0..1.
        """
        other = floats(weights["D"])
        state = self.average.state_dict()
        mixed = {k: torch.lerp(v, other[k].to(v), share) if v.is_floating_point() else v for k, v in state.items()}
        self.average.load_state_dict(mixed)

    def load_teacher(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Use the larger network of `ifqa_teacher.pth` as teacher, and start with the restorers trained with it."""
        full = {n: {k: v.float() if v.is_floating_point() else v for k, v in w.items()} for n, w in weights.items()}
        teacher = Ifqa(SLIM)
        teacher.load_state_dict(full["D"])
        self.teacher = teacher.to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.restorer.load_state_dict(full["restorer"])
        self.plain.load_state_dict(full["plain"])


def _with_the_clean_face(values: Tensor, total: int) -> Tensor:
    """From one value per picture of all series, one value per veiled picture (`total`), with 0 for the clean faces."""
    rows = values.reshape(total - len(values), -1)
    return torch.cat([rows.new_zeros(len(rows), 1), rows], 1).flatten()
