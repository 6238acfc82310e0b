"""Losses of the IFQA recipe."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def lsgan(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Least-squares realness: mean over weighted positions of (sigmoid - label)^2.

    logits, label: [N, S, S]; weight: broadcastable to them (face mask times a weight a picture).
    """
    weight = weight.expand_as(logits)
    return (weight * (torch.sigmoid(logits) - label) ** 2).sum() / weight.sum().clamp_min(1e-6)


def score_logit(logits: Tensor, pool: Tensor, temperature: float) -> Tensor:
    """Logit of the exported score: logits [N, S, S], pool [S, S] summing to 1 -> [N]."""
    score = (torch.sigmoid(logits / temperature) * pool).sum(dim=(1, 2)).clamp(1e-20, 1 - 1e-6)
    return torch.log(score) - torch.log1p(-score)


def rank_loss(better: Tensor, worse: Tensor, margin: Tensor | float) -> Tensor:
    """Mean of softplus(margin - (better - worse)) over pairs of score logits; 0 where there are none."""
    if better.numel() == 0:
        return better.sum()
    return F.softplus(margin - (better - worse)).mean()


def anchor_loss(score: Tensor, severity: Tensor, start: float, fall: float, weight: Tensor) -> Tensor:
    """Huber distance of score logits to a straight line: `start` at severity 0, `fall` lower at severity 1.

    Ranking alone lets every face have its own scale; the line makes one severity give the same score on all faces,
    and keeps bad and worse faces apart where LSGAN would push both to zero. weight: [N], 0 where the line does not
    apply.
    """
    distance = F.smooth_l1_loss(score, start - fall * severity, reduction="none")
    return (weight * distance).sum() / weight.sum().clamp_min(1.0)


VEIL_FLOOR = -4.0
"""Score logit (2 % of realness) below which a picture is so bad that a veil cannot change anything."""


def veil_loss(bare: Tensor, veiled: Tensor) -> Tensor:
    """How far score logits rise under a veil: softplus of the rise over pairs, near 0 where they fall.

    The bare score is held fixed; otherwise raising bad pictures would reduce the loss.
    """
    rise = veiled - bare.detach().clamp_min(VEIL_FLOOR)
    return F.softplus(4 * (rise + 0.15)).mean() / 4


def teacher_loss(logits: Tensor, told: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Mean squared distance of two maps, [N, S, S] logits; weight: [S, S] of the positions."""
    distance = (torch.sigmoid(logits / temperature) - torch.sigmoid(told / temperature)) ** 2
    return (distance * weight).sum() / (weight.sum() * len(logits))


def graded_pairs(group: Tensor, severity: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
    """Index pairs (milder, stronger) within groups: 0.05 apart on one face, 0.12 apart on two."""
    gap = severity[None, :] - severity[:, None]
    needed = torch.where(face[None, :] == face[:, None], 0.05, 0.12)
    milder, stronger = torch.nonzero((group[None, :] == group[:, None]) & (gap > needed), as_tuple=True)
    return milder, stronger
