"""Training of the head `visible`, with the rest of the network frozen: losses and checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from models.common.stats import auc
from models.common.training import adamw, cosine_factor, floats, update_average
from models.expression.architecture import ExpressionNetwork, normalise, visible_share

_HEAD = "visible."
_LOST = 0.01
"""Share of uncovered faces that may be taken for covered ones when `separation` counts the covered ones found."""


@dataclass(frozen=True)
class HeadSettings:
    """config.toml, [visible]; step numbers include the steps of earlier runs whose weights a run starts from."""

    steps: int
    warmup: int
    rate: float
    weight_decay: float
    ema: float
    cells: float
    """Weight of the loss of the map of cells; the loss of the covered extent has weight 1."""


class HeadTrainer:
    """State of a run; `step(batch)` advances it by one step and returns its loss terms."""

    def __init__(self, settings: HeadSettings, seed: int, device: torch.device, half: bool) -> None:
        """half: use bfloat16 in the network; losses are always float32."""
        torch.manual_seed(seed)
        self.settings, self.device, self.half = settings, device, half
        self.steps_done = self.started_at = 0
        self.network = ExpressionNetwork().to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.head = self.network.visible.requires_grad_(True)
        self.average = copy.deepcopy(self.head).eval().requires_grad_(False)
        self.optimiser = adamw(self.head.parameters(), settings.rate, settings.weight_decay)

    def take_network(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load all weights except the head's from the state of a network."""
        rest = {k: v for k, v in floats(state).items() if not k.startswith(_HEAD)}
        self.network.load_state_dict(rest | {_HEAD + k: v for k, v in self.head.state_dict().items()})

    def step(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """One update; returns the loss terms."""
        self.head.train()
        self._set_rate()
        face, covered, at_least, cells, weight = (
            torch.as_tensor(batch[name]).to(self.device) for name in ("face", "covered", "at_least", "cells", "weight")
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            with torch.no_grad():
                taps = self.network.taps(normalise(face).contiguous(memory_format=torch.channels_last))
            logits, extent = self.head(taps)
        told = extent.float().sigmoid().detach()
        wanted = torch.where(at_least, torch.maximum(covered.sqrt(), told), covered.sqrt())
        whole = F.binary_cross_entropy_with_logits(extent.float(), wanted)
        each = F.binary_cross_entropy_with_logits(logits.float(), cells.clamp(0, 1), reduction="none")
        parts = (each * weight).sum() / weight.sum()
        loss = whole + self.settings.cells * parts
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 5.0)
        self.optimiser.step()
        self.steps_done += 1
        update_average(self.average, self.head, self.settings.ema, self.steps_done - self.started_at)
        return {"extent": float(whole.detach()), "cells": float(parts.detach())}

    def _set_rate(self) -> None:
        s = self.settings
        factor = cosine_factor(self.steps_done - self.started_at, s.warmup, self.steps_done / max(s.steps, 1))
        for group in self.optimiser.param_groups:
            group["lr"] = s.rate * factor

    @torch.no_grad()
    def look(self, faces: np.ndarray, chunk: int = 64) -> np.ndarray:
        """Visible shares float32 [N] by the averaged head, for crops uint8 [N, 144, 128, 3]."""
        parts = []
        for start in range(0, len(faces), chunk):
            taps = self.network.taps(normalise(torch.as_tensor(faces[start : start + chunk]).to(self.device)))
            parts.append(visible_share(self.average(taps)[1]).float().cpu().numpy())
        return np.concatenate(parts)

    def whole(self) -> ExpressionNetwork:
        """The network with the averaged head."""
        network = copy.deepcopy(self.network).cpu()
        network.visible.load_state_dict(self.average.state_dict())
        network.visible.steps.fill_(self.steps_done)
        return network.eval().requires_grad_(False)

    def state(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        return {
            "step": self.steps_done,
            "started_at": self.started_at,
            "head": self.head.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()` of an earlier run."""
        for name in ("head", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.steps_done, self.started_at = int(state["step"]), int(state["started_at"])

    def load_warm(self, state: Mapping[str, Any]) -> None:
        """Start from the head of a network's committed weights, with a fresh optimiser."""
        head = {k.removeprefix(_HEAD): v for k, v in state["network"].items() if k.startswith(_HEAD)}
        head = floats(head)
        self.head.load_state_dict(head)
        self.average.load_state_dict(head)
        self.steps_done = self.started_at = int(head["steps"])


def separation(bare: np.ndarray, covered: Mapping[str, np.ndarray]) -> dict[str, float]:
    """AUC of covered and uncovered views, and for each kind of cover the share found if 1 % of the uncovered views are
    taken for covered ones.
    """
    limit = float(np.quantile(bare, _LOST))
    found = {kind: float((visible < limit).mean()) for kind, visible in covered.items()}
    return {"auc": auc(bare, np.concatenate(list(covered.values()))), **found}
