"""A head that tells photographs from drawings by statistics of feature maps, and its training.

The statistics of each picture are computed once; training on them takes seconds.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SURE = 0.02
"""Difference of the training targets from 0 and 1, because a few pictures are in the wrong folder."""


class StatisticsHead(nn.Module):
    """Two linear layers: one logit from normalised statistics."""

    mean: Tensor
    scale: Tensor

    def __init__(self, count: int) -> None:
        """count: number of statistics."""
        super().__init__()
        self.hidden = nn.Linear(count, 64)
        self.photograph = nn.Linear(64, 1)
        self.register_buffer("mean", torch.zeros(count, 1, 1))
        self.register_buffer("scale", torch.ones(count, 1, 1))

    def logits(self, found: Tensor, dropped: float = 0.0) -> Tensor:
        """Logits (N,) from statistics (N, count, 1, 1); dropped: dropout rate of the statistics and of the hidden units
        in training."""
        found = ((found - self.mean) * self.scale).clamp(-6.0, 6.0)
        if dropped:
            found = F.dropout(found, dropped)
        hidden = torch.relu(over_map(self.hidden, found))
        if dropped:
            hidden = F.dropout(hidden, dropped)
        return over_map(self.photograph, hidden).flatten(1).squeeze(1)


def over_map(layer: nn.Linear, maps: Tensor) -> Tensor:
    """A linear layer on maps (N, C, H, W), as (N, outputs, 1, 1); the batch does not change a face's result."""
    # Plain integers, because the exported graph would otherwise compute the sizes again in every run.
    sizes = [int(size) for size in maps.shape[1:]]
    return F.conv2d(maps, layer.weight.reshape(-1, *sizes), layer.bias)


def fit_statistics_head(
    head: StatisticsHead, rows: Tensor, wanted: Tensor, weight: Tensor, settings: dict[str, Any]
) -> None:
    """Train the two layers, in place.

    rows: statistics (N, count, 1, 1). wanted: 1.0 for photographs, 0.0 for drawings, (N,). weight: relative frequency
    with which a row is drawn within its kind, (N,), changed in place; both kinds are drawn equally often. settings:
    `steps`, `batch`, `rate`, `weight_decay` and `dropped`.
    """
    for each in (0.0, 1.0):
        weight[wanted == each] /= weight[wanted == each].sum()
    head.mean.copy_(rows.mean(dim=0))
    head.scale.copy_(1.0 / (rows.std(dim=0) + 1e-3))
    trained = [*head.hidden.parameters(), *head.photograph.parameters()]
    optimiser = torch.optim.AdamW(trained, settings["rate"], weight_decay=settings["weight_decay"])
    for step in range(settings["steps"]):
        for group in optimiser.param_groups:
            group["lr"] = settings["rate"] * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / settings["steps"])))
        drawn = torch.multinomial(weight, settings["batch"], replacement=True)
        logits = head.logits(rows[drawn], settings["dropped"])
        loss = F.binary_cross_entropy_with_logits(logits, _SURE + (1 - 2 * _SURE) * wanted[drawn])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
