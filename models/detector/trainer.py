"""One training run: distillation unit by unit, then end-to-end training; and the contents of a checkpoint.

Calibration: during the first batches, no weights are updated. The norms compute the statistics that they use from then
on, and the coordinates of whitening.py are determined. Statistics of each batch would not work: the teacher's
statistics are fixed, and a student that normalises a dark scene by that scene's own statistics cannot produce the
teacher's maps.

Stage 1, separate: the input of every unit of the student is the teacher's map, and the unit learns the teacher's map at
its own output. All units learn in parallel, and every position of a map is a sample.

Stage 2, joined: gradients flow through the whole network. Labels are used as well (class with hard negatives, box,
landmarks), so that the student may deviate from its teacher.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.common.training import floats, halved, update_average
from models.detector.losses import distil, match, task
from models.detector.teacher import Teacher
from models.detector.units import MAPS, new_network, normalise, norms, run, same, set_heads, set_scales
from models.detector.whitening import Whitening
from models.recognizer.precision import autocast
from streamgate.networks.priors import priors


@dataclass(frozen=True)
class Settings:
    """config.toml, [loss] and [optimiser]; step numbers include the steps of earlier runs."""

    maps: float
    maps_joined: float
    class_: float
    place: float
    task_class: float
    task_box: float
    task_points: float
    negatives: int
    calibrate: int
    join: int
    steps: int
    warmup: int
    decay: int
    rate_alone: float
    rate: float
    ema: float


class Trainer:
    """State of a run; `step(batch)` advances it by one step and returns figures for the log."""

    def __init__(self, settings: Settings, teacher: Teacher, seed: int, device: torch.device, half: bool) -> None:
        """half: bfloat16 in dense convolutions."""
        torch.manual_seed(seed)
        self.settings, self.teacher, self.device, self.half = settings, teacher, device, half
        self.steps_done = self.started_at = 0
        self.network = new_network().to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        if half and device.type == "cpu":
            halve_dense(self.network)
            halve_dense(teacher.network)
        self.whitening = Whitening(self.network)
        self.optimiser: torch.optim.Optimizer | None = None
        self._calibrated = 0
        self._variance: dict[str, Tensor] = {}

    # --- one step -------------------------------------------------------------------------------------------

    def step(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """One update; returns the loss terms. Terms that start with `map_` are the unexplained variances of units."""
        s, joined = self.settings, self.joined
        planes = normalise(torch.as_tensor(batch["image"]).to(self.device))
        planes = planes.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.half):
            maps, wanted = self.teacher.look(planes)
            if self._calibrated < 2 * s.calibrate:
                self._calibrate(planes, maps)
                self.steps_done += 1
                return {}
            if self.optimiser is None or self.steps_done == s.join:
                self._begin()
            made, heads = run(self.network, planes, same if joined else lambda name, _: maps[name])
        targets = match(torch.as_tensor(batch["faces"]).to(self.device), self.priors(*planes.shape[2:]))
        heads = tuple(h.float() for h in heads)  # type: ignore[assignment]
        wanted = tuple(h.float() for h in wanted)  # type: ignore[assignment]
        scales = {name: 1.0 / (v + 0.05 * v.mean() + 1e-8) for name, v in self._variance.items()}
        errors = {
            f"map_{name}": ((made[name].float() - maps[name].float()).square() * scales[name]).mean() for name in MAPS
        }
        figures = distil(heads, wanted, targets if joined else None)
        loss = (s.maps_joined if joined else s.maps) * torch.stack(list(errors.values())).mean()
        loss = loss + s.class_ * figures["logit"] + s.place * figures["place"]
        if joined:
            told = task(heads, targets, s.negatives)
            loss = loss + s.task_class * told["class"] + s.task_box * told["box"] + s.task_points * told["points"]
            figures |= told
        self._update(loss)
        self.steps_done += 1
        update_average(self.average, self.network, s.ema, self.steps_done - self.started_at)
        return {name: float(value.detach()) for name, value in (figures | errors).items()}

    @property
    def joined(self) -> bool:
        """Whether gradients flow through the whole network."""
        return self.steps_done >= self.settings.join

    def priors(self, height: int, width: int) -> Tensor:
        """Priors (P, 3) of an input size, on the device."""
        return torch.from_numpy(priors(height, width).copy()).to(self.device)

    @torch.no_grad()
    def _calibrate(self, planes: Tensor, maps: dict[str, Tensor]) -> None:
        """One batch of calibration: at first for the norms and heads, then for the statistics of the inputs."""

        def given(name: str, _: Tensor) -> Tensor:
            return maps[name]

        count, half = self._calibrated, self.settings.calibrate
        if count < half:
            if count == 0:
                set_scales(self.network, maps)
                set_heads(self.network, self.teacher.network, maps)
            for norm in norms(self.network):
                norm.momentum = None if count else 1.0  # mean over all batches; the first batch replaces the old values
            self.network.train()
            run(self.network, planes, given)
            self.network.eval()
        else:
            with self.whitening.measure():
                run(self.network, planes, same if self.joined else given)
            # The squared errors of the maps are divided by the variances of the teacher's maps.
            for name, value in maps.items():
                variance = value.float().var(dim=(0, 2, 3), keepdim=True)
                mean = self._variance.get(name, torch.zeros_like(variance))
                self._variance[name] = mean + (variance - mean) / (count - half + 1)
        self._calibrated += 1
        if self._calibrated == 2 * half:
            self.whitening.settle()
            self.average.load_state_dict(self.network.state_dict())

    def _begin(self) -> None:
        """Create an optimiser: at the start, and when the network is joined, which changes the size of gradients."""
        plain = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": self.whitening.parameters()}, {"params": plain}]
        self.optimiser = torch.optim.Adam(groups, self.settings.rate, betas=(0.9, 0.99))
        self.average.load_state_dict(self.network.state_dict())
        self.started_at = self.steps_done

    def _update(self, loss: Tensor) -> None:
        assert self.optimiser is not None
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        self.whitening.pull()
        every = [p for group in self.optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(every, 5.0)
        self.optimiser.step()
        self.whitening.push()

    def _rate(self) -> float:
        s = self.settings
        warm = min(1.0, (self.steps_done - self.started_at + 1) / s.warmup)
        if not self.joined:
            # The rate falls in the second half, because units must be exact before their outputs feed other units.
            left = (s.join - self.steps_done) / max(1, s.join - 2 * s.calibrate)
            return s.rate_alone * warm * max(0.03, min(1.0, 2 * left))
        return s.rate * warm * max(0.02, min(1.0, (s.steps - self.steps_done) / s.decay))

    # --- looking, saving ------------------------------------------------------------------------------------

    @torch.no_grad()
    def look(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Outputs of the averaged network for uint8 (N, H, W, 3): loc, face probability (N, P), landmarks."""
        planes = normalise(torch.as_tensor(image).to(self.device))
        return probabilities(self.average(planes))

    @torch.no_grad()
    def look_teacher(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same outputs of the teacher."""
        return probabilities(self.teacher.look(normalise(torch.as_tensor(image).to(self.device)))[1])

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        state: dict[str, Any] = {
            "step": self.steps_done,
            "started_at": self.started_at,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "variance": self._variance,
        }
        if self.optimiser is not None:
            state |= {"optimiser": self.optimiser.state_dict(), "whitening": self.whitening.state()}
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()` of an earlier run; a run that was stopped while calibrating calibrates again."""
        self.network.load_state_dict(state["network"])
        self.network.eval()
        self.average.load_state_dict(state["average"])
        self.steps_done = int(state["step"])
        if "optimiser" in state:
            self._calibrated = 2 * self.settings.calibrate
            self.whitening.load_state(state["whitening"])
            self._variance = {name: value.to(self.device) for name, value in state["variance"].items()}
            self._begin()
            assert self.optimiser is not None
            self.optimiser.load_state_dict(state["optimiser"])
            self.average.load_state_dict(state["average"])
            self.started_at = int(state["started_at"])

    def warm_state(self) -> dict[str, Any]:
        """Half-precision weights and the number of steps, from which the next run starts."""
        return {"step": self.steps_done, "network": halved(self.average.state_dict())}

    def load_warm(self, state: Mapping[str, Any]) -> None:
        """Start from `warm_state()` of an earlier run, with a fresh optimiser."""
        weights = floats(state["network"])
        self.network.load_state_dict(weights)
        self.average.load_state_dict(weights)
        self.network.eval()
        self.steps_done = self.started_at = int(state["step"])
        self._calibrated = self.settings.calibrate


def probabilities(heads: tuple[Tensor, Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """loc, face probability and landmarks as float32 arrays."""
    loc, logits, points = (h.float() for h in heads)
    return loc.cpu().numpy(), torch.softmax(logits, dim=-1)[..., 1].cpu().numpy(), points.cpu().numpy()


def halve_dense(network: nn.Module) -> None:
    """Let dense convolutions run in bfloat16 and depthwise convolutions in float32, in place (CPU).

    On the CPU, the backward pass of depthwise convolutions is slower in bfloat16 than in float32. The first convolution
    runs in float32, because its input has the values of bytes, which bfloat16 would round.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            dense = module.groups == 1 and module.in_channels > 3
            module.forward = (_half if dense else _full).__get__(module)  # type: ignore[method-assign]


def _half(self: nn.Conv2d, x: Tensor) -> Tensor:
    bias = None if self.bias is None else self.bias.bfloat16()
    return F.conv2d(x.bfloat16(), self.weight.bfloat16(), bias, self.stride, self.padding)


def _full(self: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x.float(), self.weight, self.bias, self.stride, self.padding, 1, self.groups)
