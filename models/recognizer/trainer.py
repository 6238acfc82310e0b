"""One training run: block-wise distillation that turns into end-to-end training; and the contents of a checkpoint.

Stage 1, blocks: the input of every unit of the student is the teacher's map, and the unit learns the teacher's map at
its own output. All units learn in parallel.

Stage 2, chain: a growing share of the inputs comes from the student's preceding unit (without gradient), so that units
learn to tolerate and correct the errors of preceding units.

Stage 3, joined: the student runs as one network, and gradients flow through all of it.

In every stage, the loss includes the cosine and the pairwise similarities of embeddings, with dropout before the last
layer, and the heads, whose input maps get no gradient.

With `heads_only`, the backbone is the teacher's, unchanged. There are no stages then: only the heads learn. This is for
teachers whose licence allows their weights to be redistributed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.common.training import adamw, floats, halved, update_average
from models.recognizer.architecture import MIDDLE_BLOCK, FaceNetwork, Taps
from models.recognizer.precision import autocast, halve_pointwise
from models.recognizer.teacher import Teacher

COARSE_UNITS, MIDDLE_UNITS = 7, 13
"""The units before the first number use maps of 28 x 28 or more; those before the second number, maps of 14 x 14. These
maps have so many positions per face that a few faces per step are enough."""
_POSE_SCALE = 10.0
"""Error in degrees at which the pose loss changes from square to absolute."""


@dataclass(frozen=True)
class Settings:
    """config.toml, [loss] and [optimiser]; step numbers include the steps of earlier runs."""

    maps: float
    features: float
    embedding: float
    similarity: float
    pose: float
    visible: float
    drop_rate: float
    coarse_share: float
    middle_share: float
    steps: int
    chain_from: int
    chain_full: int
    join: int
    warmup: int
    decay: int
    rate: float
    weight_decay: float
    ema: float
    heads_only: bool = False


class Trainer:
    """State of a run; `step(batch)` advances it by one step and returns figures for the log."""

    def __init__(self, settings: Settings, teacher: Teacher, seed: int, device: torch.device, half: bool) -> None:
        """half: bfloat16 where it is faster (precision.py)."""
        torch.manual_seed(seed)
        self.settings, self.teacher, self.device, self.half, self.seed = settings, teacher, device, half, seed
        self.steps_done = self.started_at = 0
        self.network = FaceNetwork(settings.drop_rate, teacher.network.shape)
        if settings.heads_only:
            self.network.backbone.load_state_dict(teacher.published.backbone.state_dict())
            self.network.backbone.requires_grad_(False)
        self.network.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        if half and device.type == "cpu":
            halve_pointwise(self.network.backbone)
            halve_pointwise(teacher.network.backbone)
        learning = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = adamw(learning, settings.rate, settings.weight_decay)
        self._scales: list[Tensor] = []

    # --- one step -------------------------------------------------------------------------------------------

    def step(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """One update; returns the loss terms. `mapN` is the share of unexplained variance of unit N."""
        self.network.train()
        if self.settings.heads_only:
            self.network.backbone.eval()
        self._set_rate()
        # Dropout depends only on the step, so a resumed run does the same as an uninterrupted run.
        torch.manual_seed(self.seed * 1_000_003 + self.steps_done)
        planes = self.teacher.planes(torch.as_tensor(batch["face"]).to(self.device))
        with autocast(self.device, self.half):
            wanted = self.teacher.maps(planes)
            target = F.normalize(self.teacher.embed(wanted[-1].float()))
            if not self._scales:
                self._scales = [self._scale(i, planes, wanted) for i in range(len(wanted))]
            outputs = self._outputs(planes, wanted)
            embedding = F.normalize(self.network.embed(outputs[-1].float()).float())
            seen = len(outputs[1 + MIDDLE_BLOCK])
            taps = Taps.of([out[:seen].detach().float() for out in outputs])
            pose, logit = self.network.heads(taps)
        errors = [
            ((out.float() - want[: len(out)].float()).square() * scale).mean()
            for out, want, scale in zip(outputs, wanted, self._scales, strict=True)
        ]
        s = self.settings
        cosine = (1 - (embedding * target).sum(dim=1)).mean()
        alike = (embedding @ embedding.T - target @ target.T).square().mean()
        turned, visible = (torch.as_tensor(batch[name][:seen]).to(self.device) for name in ("pose", "visible"))
        turn = F.smooth_l1_loss(pose.float() / _POSE_SCALE, turned / _POSE_SCALE)
        share = F.binary_cross_entropy_with_logits(logit.float(), visible)
        loss = s.maps * torch.stack(errors[:-1]).mean() + s.features * errors[-1]
        loss = loss + s.embedding * cosine + s.similarity * alike
        loss = loss + s.pose * turn + s.visible * share
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.steps_done += 1
        update_average(self.average, self.network, self.settings.ema, self.steps_done)
        figures = {"cosine": cosine, "alike": alike, "pose": turn, "visible": share}
        figures |= {f"map{i}": error for i, error in enumerate(errors)}
        return {name: float(value.detach()) for name, value in figures.items()}

    @property
    def joined(self) -> bool:
        """Whether gradients flow through the whole network."""
        return self.steps_done >= self.settings.join

    def _outputs(self, planes: Tensor, wanted: list[Tensor]) -> list[Tensor]:
        """The output of each unit of the student."""
        if self.settings.heads_only:
            return wanted
        return self._joined(planes) if self.joined else self._chained(planes, wanted)

    def _joined(self, planes: Tensor) -> list[Tensor]:
        outputs, x = [], planes
        for unit in self.network.units():
            x = unit(x)
            outputs.append(x)
        return outputs

    def _chained(self, planes: Tensor, wanted: list[Tensor]) -> list[Tensor]:
        """Outputs of the units. Their inputs are the teacher's maps or, for some faces, the output of the preceding
        unit without gradient."""
        s = self.settings
        chained = min(1.0, max(0.0, (self.steps_done - s.chain_from) / max(1, s.chain_full - s.chain_from)))
        few, some = (max(2, round(len(planes) * part)) for part in (s.coarse_share, s.middle_share))
        outputs: list[Tensor] = []
        for index, unit in enumerate(self.network.units()):
            size = few if index < COARSE_UNITS else some if index < MIDDLE_UNITS else len(planes)
            if index == 0:
                x = planes[:size]
            else:
                x, own = wanted[index - 1][:size], outputs[-1].detach()
                count = round(chained * min(len(own), size))
                if count:
                    x = torch.cat([own[:count].to(x.dtype), x[count:]])
            outputs.append(unit(x.contiguous(memory_format=torch.channels_last)))
        return outputs

    def _scale(self, index: int, planes: Tensor, wanted: list[Tensor]) -> Tensor:
        """1 / variance of the unit's residual for each channel: the weight of its squared error."""
        unit, out = self.network.units()[index], wanted[index].float()
        if getattr(unit, "shortcut", False):
            out = out - wanted[index - 1].float()
        others = (0,) if out.ndim == 2 else (0, 2, 3)
        variance = out.var(dim=others, keepdim=True)
        return 1.0 / (variance + 0.05 * variance.mean() + 1e-8)

    def _set_rate(self) -> None:
        s = self.settings
        factor = min(1.0, (self.steps_done - self.started_at + 1) / s.warmup)
        factor *= max(0.02, min(1.0, (s.steps - self.steps_done) / s.decay))
        for group in self.optimiser.param_groups:
            group["lr"] = s.rate * factor

    # --- looking, saving ------------------------------------------------------------------------------------

    @torch.no_grad()
    def look(self, faces: np.ndarray, chunk: int = 64) -> dict[str, np.ndarray]:
        """Outputs of the averaged network for uint8 [N, 112, 112, 3]: normalised embedding, pose, visible; float32."""
        found: dict[str, list[np.ndarray]] = {"embedding": [], "pose": [], "visible": []}
        for start in range(0, len(faces), chunk):
            taps = self.average.taps(self.teacher.planes(torch.as_tensor(faces[start : start + chunk]).to(self.device)))
            pose, logit = self.average.heads(taps)
            found["embedding"].append(F.normalize(self.average.embed(taps.features)).cpu().numpy())
            found["pose"].append(pose.cpu().numpy())
            found["visible"].append(torch.sigmoid(logit).cpu().numpy())
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "step": self.steps_done,
            "started_at": self.started_at,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scales": self._scales,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()` of an earlier run."""
        for name in ("network", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.steps_done, self.started_at = int(state["step"]), int(state["started_at"])
        self._scales = [scale.to(self.device) for scale in state["scales"]]

    def warm_state(self) -> dict[str, Any]:
        """Half-precision weights and the number of steps, committed so that the next run starts from them."""
        return {"step": self.steps_done, "network": halved(self.average.state_dict())}

    def load_warm(self, state: Mapping[str, Any]) -> None:
        """Start from `warm_state()` of an earlier run, with a fresh optimiser."""
        weights = floats(state["network"])
        self.network.load_state_dict(weights)
        self.average.load_state_dict(weights)
        self.steps_done = self.started_at = int(state["step"])
