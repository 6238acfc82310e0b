"""Prior matching, and the losses on the heads: RetinaFace's multi-task loss on labels, and distillation.

Deng et al., CVPR 2020: a prior is positive if its intersection over union with a face is at least 0.35, and the best
prior of each face is positive as well. Of the background priors, only those that look most like faces count (hard
negatives).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.detector import faces as rows_of
from models.detector.units import Heads
from streamgate.networks.priors import SHIFT_VARIANCE, SIZE_VARIANCE

POSITIVE_IOU = 0.35
LEAST_IOU = 0.15
"""Below this overlap, even the best prior of a face is not used, because the offsets would be too large."""
IGNORED_SHARE = 0.3
"""A prior is ignored if at least this share of its area is inside an ignored face."""
_FACE = 0.5
"""Minimum face probability from the teacher at which the teacher's boxes and landmarks are used as targets."""
_NEAR = 0.1
"""Distance to the teacher's boxes and landmarks, in units of a prior's variances, at which the loss changes from square
to absolute. Landmarks should agree within a few per cent of a face; with the default of 1, the loss would hardly react
to such errors."""
_CERTAIN = 8.0
"""Logits are clipped to this absolute value before they are compared."""


@dataclass(frozen=True)
class Targets:
    """Targets for every prior: `kind` int (N, P), 1 for face, 0 for background, -1 for neither; `loc` (N, P, 4) and
    `points` (N, P, 10), relative to the prior; `has_points` bool (N, P)."""

    kind: Tensor
    loc: Tensor
    points: Tensor
    has_points: Tensor


def match(faces: Tensor, priors: Tensor) -> Targets:
    """Targets for priors (P, 3), in pixels, from faces float32 (N, M, 16) (score 1: face, 0: neither, -1: padding)."""
    centres, sides = priors[:, :2], priors[:, 2:]
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=1)
    score, labels = faces[..., rows_of.SCORE], faces[..., rows_of.BOX]
    shared, area, prior_area = _shared(labels, boxes)
    iou = shared / (area[..., None] + prior_area - shared).clamp(min=1e-6)
    iou = torch.where((score == 1)[..., None], iou, torch.zeros_like(iou))
    best, chosen = iou.max(dim=1)
    # The best prior of a face belongs to that face, even if another face overlaps the prior more.
    top, place = iou.max(dim=2)
    for n, m in (top >= LEAST_IOU).nonzero().tolist():
        best[n, place[n, m]] = 2.0
        chosen[n, place[n, m]] = m
    kind = (best >= POSITIVE_IOU).long()
    ignored = ((score == 0)[..., None] & (shared / prior_area >= IGNORED_SHARE)).any(dim=1)
    # Priors count as background only if their overlap is at least 0.05 below the threshold for a face.
    kind[(kind == 0) & (ignored | (best >= POSITIVE_IOU - 0.05))] = -1
    mine = torch.gather(faces, 1, chosen[..., None].expand(-1, -1, faces.shape[2]))
    extent = (mine[..., 2:4] - mine[..., :2]).clamp(min=1e-3)
    shift = ((mine[..., :2] + mine[..., 2:4]) / 2 - centres) / (SHIFT_VARIANCE * sides)
    size = torch.log(extent / sides) / SIZE_VARIANCE
    points = mine[..., rows_of.POINTS].unflatten(-1, (5, 2))
    points = (points - centres[:, None]) / (SHIFT_VARIANCE * sides)[:, None]
    return Targets(kind, torch.cat([shift, size], dim=-1), points.flatten(-2), mine[..., rows_of.HAS_POINTS] > 0)


def _shared(labels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersections (N, M, P), areas of the labels (N, M) and of the priors (P)."""
    low = torch.maximum(labels[:, :, None, :2], boxes[None, None, :, :2])
    high = torch.minimum(labels[:, :, None, 2:], boxes[None, None, :, 2:])
    areas = [(b[..., 2:4] - b[..., :2]).clamp(min=0).prod(dim=-1) for b in (labels, boxes)]
    return (high - low).clamp(min=0).prod(dim=-1), areas[0], areas[1]


def task(heads: Heads, targets: Targets, negatives: int) -> dict[str, Tensor]:
    """Losses on labels: class (with hard negatives), box and landmarks, each as a mean over the positive priors."""
    loc, logits, points = heads
    z = logits[..., 1] - logits[..., 0]
    positive = targets.kind == 1
    loss = F.binary_cross_entropy_with_logits(z, positive.float(), reduction="none")
    background = torch.where(targets.kind == 0, loss, torch.zeros_like(loss))
    ranks = background.detach().argsort(dim=1, descending=True).argsort(dim=1)
    # At least 30 negatives per scene, so that scenes without faces contribute, too.
    wanted = (negatives * positive.sum(dim=1, keepdim=True)).clamp(min=30)
    hard = (ranks < wanted) & (targets.kind == 0)
    count = positive.sum().clamp(min=1)
    figures = {"class": (loss[positive].sum() + loss[hard].sum()) / (count + hard.sum() / 3)}
    figures["box"] = F.smooth_l1_loss(loc[positive], targets.loc[positive], reduction="sum") / (4 * count)
    marked = positive & targets.has_points
    total = F.smooth_l1_loss(points[marked], targets.points[marked], reduction="sum")
    figures["points"] = total / (10 * marked.sum().clamp(min=1))
    return figures


def distil(heads: Heads, wanted: Heads, targets: Targets | None) -> dict[str, Tensor]:
    """Distance to the teacher's heads; where the labels contradict the teacher's class, the class is ignored."""
    z, aim = (h[1][..., 1] - h[1][..., 0] for h in (heads, wanted))
    weight = 0.05 + torch.sigmoid(aim) + torch.sigmoid(z.detach())
    if targets is not None:
        missed, alarm = (targets.kind == 1) & (aim < 2), (targets.kind == 0) & (aim > -2)
        weight = torch.where(missed | alarm, torch.zeros_like(weight), weight)
    distance = F.smooth_l1_loss(z.clamp(-_CERTAIN, _CERTAIN), aim.clamp(-_CERTAIN, _CERTAIN), reduction="none")
    figures = {"logit": (distance * weight).sum() / weight.sum().clamp(min=1e-6)}
    seen = torch.sigmoid(aim) >= _FACE
    count = seen.sum().clamp(min=1)
    boxes, points = (
        F.smooth_l1_loss(heads[i][seen], wanted[i][seen], reduction="sum", beta=_NEAR) / count for i in (0, 2)
    )
    figures["place"] = boxes / 4 + points / 5
    return figures
