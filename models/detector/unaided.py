"""Training on labels only, without a teacher. The resulting network does not depend on the terms of a published
detector's training data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.common.training import update_average
from models.detector.losses import match, task
from models.detector.trainer import Settings, Trainer, halve_dense
from models.detector.units import new_network, normalise
from models.recognizer.precision import autocast


class LabelTrainer(Trainer):
    """State of a run; `step(batch)` advances it by one step and returns figures for the log.

    Settings that concern a teacher, such as `join`, `calibrate` and `maps`, are ignored: the network is joined from the
    start, its norms use the statistics of each batch, and RetinaFace's multi-task loss is the only loss.
    """

    def __init__(self, settings: Settings, seed: int, device: torch.device, half: bool) -> None:
        """half: bfloat16 in dense convolutions."""
        torch.manual_seed(seed)
        self.settings, self.device, self.half = settings, device, half
        self.steps_done = self.started_at = 0
        self.network = new_network().to(device, memory_format=torch.channels_last)
        # Initially, one prior in a hundred is a face. Without this bias, the network spends the first hundreds of steps
        # only on learning that faces are rare.
        with torch.no_grad():
            for head in self.network.ClassHead:
                head.conv1x1.bias.view(-1, 2).copy_(torch.tensor([2.3, -2.3]))
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        if half and device.type == "cpu":
            halve_dense(self.network)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        rest = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(groups, settings.rate, betas=(0.9, 0.99))

    def step(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """One update; returns the loss terms."""
        s = self.settings
        self.network.train()
        for group in self.adam.param_groups:
            group["lr"] = self._rate()
        planes = normalise(torch.as_tensor(batch["image"]).to(self.device))
        planes = planes.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.half):
            heads = tuple(h.float() for h in self.network(planes))
        targets = match(torch.as_tensor(batch["faces"]).to(self.device), self.priors(*planes.shape[2:]))
        told = task(heads, targets, s.negatives)  # type: ignore[arg-type]
        loss = s.task_class * told["class"] + s.task_box * told["box"] + s.task_points * told["points"]
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.adam.step()
        self.steps_done += 1
        update_average(self.average, self.network, s.ema, self.steps_done - self.started_at)
        return {name: float(value.detach()) for name, value in told.items()}

    @property
    def joined(self) -> bool:
        """True: without a teacher, the network is always joined."""
        return True

    def look_teacher(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The output of the network itself, because there is no teacher."""
        return self.look(image)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "step": self.steps_done,
            "started_at": self.started_at,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "adam": self.adam.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()` of an earlier run."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.adam.load_state_dict(state["adam"])
        self.steps_done, self.started_at = int(state["step"]), int(state["started_at"])

    def load_warm(self, state: Mapping[str, Any]) -> None:
        """Start from `warm_state()` of an earlier run, with a fresh optimiser."""
        weights: dict[str, Tensor] = {k: v.float() if v.is_floating_point() else v for k, v in state["network"].items()}
        self.network.load_state_dict(weights)
        self.average.load_state_dict(weights)
        self.steps_done = self.started_at = int(state["step"])
