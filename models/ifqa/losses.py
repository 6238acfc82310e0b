"""Losses of the IFQA recipe."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def lsgan(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Least-squares loss of the realness: weighted mean of (sigmoid - label)^2 over all positions.

    logits, label: [N, S, S]; weight: broadcastable to [N, S, S] (the face mask times a weight per picture).
    """
    weight = weight.expand_as(logits)
    return (weight * (torch.sigmoid(logits) - label) ** 2).sum() / weight.sum().clamp_min(1e-6)


def score_logit(logits: Tensor, pool: Tensor, temperature: float) -> Tensor:
    """Logits of the exported scores, [N].

    logits: [N, S, S]; pool: [S, S], weights of the positions, whose sum is 1.
    """
    score = (torch.sigmoid(logits / temperature) * pool).sum(dim=(1, 2)).clamp(1e-20, 1 - 1e-6)
    return torch.log(score) - torch.log1p(-score)


def rank_loss(better: Tensor, worse: Tensor, margin: Tensor | float) -> Tensor:
    """Mean of softplus(margin - (better - worse)) over pairs of score logits; 0 if there are no pairs."""
    if better.numel() == 0:
        return better.sum()
    return F.softplus(margin - (better - worse)).mean()


def anchor_loss(score: Tensor, severity: Tensor, start: float, fall: float, weight: Tensor) -> Tensor:
    """Huber distance of score logits from a straight line, which is `start` at severity 0 and `start - fall` at 1.

    With a ranking loss only, every face could have its own scale. With the line, the same severity gives the same score
    on all faces. The line also keeps bad and even worse faces apart, whose scores LSGAN would both move to zero.
    weight: [N], 0 for pictures to which the line does not apply.
    """
    distance = F.smooth_l1_loss(score, start - fall * severity, reduction="none")
    return (weight * distance).sum() / weight.sum().clamp_min(1.0)


VEIL_FLOOR = -4.0
"""Score logit (2 % realness). Pictures that score lower without a veil are treated as if they scored this much, because
differences between such bad pictures do not matter."""


def veil_loss(bare: Tensor, veiled: Tensor) -> Tensor:
    """Mean softplus of the increase of score logits under a veil; near 0 if they decrease.

    No gradient flows through the scores without veil; otherwise, raising the scores of bad pictures would reduce the
    loss.
    """
    rise = veiled - bare.detach().clamp_min(VEIL_FLOOR)
    return F.softplus(4 * (rise + 0.15)).mean() / 4


def teacher_loss(logits: Tensor, told: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of the maps of the network and its teacher.

    logits, told: [N, S, S], of the network and of the teacher; weight: [S, S], weights of the positions.
    """
    distance = (torch.sigmoid(logits / temperature) - torch.sigmoid(told / temperature)) ** 2
    return (distance * weight).sum() / (weight.sum() * len(logits))


def graded_pairs(group: Tensor, severity: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of indices (milder, stronger) of pictures in the same group whose severities differ by more than 0.05 on
    the same face, or by more than 0.12 on two faces.
    """
    gap = severity[None, :] - severity[:, None]
    needed = torch.where(face[None, :] == face[:, None], 0.05, 0.12)
    milder, stronger = torch.nonzero((group[None, :] == group[:, None]) & (gap > needed), as_tuple=True)
    return milder, stronger
