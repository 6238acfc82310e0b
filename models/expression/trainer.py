"""One training run: regression of the teacher's pose, signals and points, and checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.common.training import adamw, floats, update_average
from models.expression.architecture import (
    BLENDSHAPES,
    LOOK_ABOVE,
    LOOK_ACROSS,
    POINTS,
    POSE_UNIT,
    SIGNALS,
    ExpressionNetwork,
    in_units,
    normalise,
)
from streamgate.measures.gaze import EYES_TURN
from streamgate.networks.alignment import EXPRESSION_EYE_DISTANCE, EXPRESSION_EYE_ROW, EXPRESSION_SIZE

_WEIGHTS = {
    3.0: "mouthFunnel mouthPucker mouthSmileLeft mouthSmileRight mouthUpperUpLeft mouthUpperUpRight mouthLowerDownLeft "
    "mouthLowerDownRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookUpLeft eyeLookUpRight "
    "lidsLeft lidsRight irisAboveLeft irisAboveRight",
    5.0: "jawOpen mouthClose lipGap eyeLookInLeft eyeLookInRight eyeLookOutLeft eyeLookOutRight irisAcrossLeft "
    "irisAcrossRight",
}
"""Weights above 1: signals that decide which face is picked; those that are learned slowly have the highest weight."""
_POINT_BETA, _SIGNAL_BETA, _POSE_BETA = 0.05, 1.0, 0.5
"""Errors at which each loss changes from squared to absolute, in distances between the eyes, standard deviations and
POSE_UNIT. With an absolute loss only, the network would predict the median instead of rare values for a long time."""
_GAZE_UNIT = 8.0
"""Unit of the gaze loss, in degrees."""
_LIDS, _LIPS_FROM, _LIPS_TO = 19, 24, 42
"""Positions in each half of POINTS: end of the lids and irises, start and end of the lips; the brows are in between."""
_STIFF = 4.0


@dataclass(frozen=True)
class Settings:
    """config.toml, [loss] and [optimiser]; step numbers include the steps of earlier runs whose weights a run starts
    from.
    """

    points: float
    signals: float
    pose: float
    gaze: float
    steps: int
    warmup: int
    decay: int
    rate: float
    weight_decay: float
    ema: float
    frozen: int
    """Number of units at the start of the trunk that are no longer trained; they take half of the time of a step,
    because their maps are the largest."""


class Trainer:
    """State of a run; `step(batch)` advances it by one step and returns its loss terms."""

    def __init__(self, settings: Settings, seed: int, device: torch.device, half: bool) -> None:
        """half: use bfloat16 in the network; losses are always float32."""
        torch.manual_seed(seed)
        self.settings, self.device, self.half = settings, device, half
        self.steps_done = self.started_at = 0
        self.network = ExpressionNetwork().to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.network.trunk[: settings.frozen].requires_grad_(False)
        self.optimiser = adamw(self.network.parameters(), settings.rate, settings.weight_decay)
        heavy = [next((w for w, names in _WEIGHTS.items() if name in names.split()), 1.0) for name in SIGNALS]
        self._signal_weight = torch.tensor(heavy, device=device) / float(np.mean(heavy))
        half_side = [_STIFF if i < _LIDS or _LIPS_FROM <= i < _LIPS_TO else 1.0 for i in range((len(POINTS) - 10) // 2)]
        stiff = [*half_side, *half_side, *([_STIFF] * 4), *([1.0] * 6)]
        turns = torch.zeros(len(SIGNALS), 2)
        for axis, parts in enumerate((LOOK_ACROSS, LOOK_ABOVE)):
            for name, share in parts.items():
                turns[SIGNALS.index(name), axis] = EYES_TURN * share
        self._turns = turns.to(device)
        self._point_weight = torch.tensor(stiff, device=device)[:, None] / float(np.mean(stiff))

    def fit_units(self, points: np.ndarray, signals: np.ndarray) -> None:
        """Set the means and standard deviations by which the outputs are normalised; points [n, P, 2] in pixels of the
        crop, signals [n, S].
        """
        for network in (self.network, self.average):
            network.mean_points.copy_(self._in_eyes(torch.as_tensor(points)).mean(dim=0).flatten())
            network.signal_mean.copy_(torch.as_tensor(signals).mean(dim=0))
            network.signal_scale.copy_(torch.as_tensor(signals).std(dim=0).clamp_min(1e-3))

    def _in_eyes(self, points: Tensor) -> Tensor:
        """Pixels of the crop, converted to distances between the eyes, from the midpoint of the eyes."""
        origin = points.new_tensor([(EXPRESSION_SIZE[1] - 1) / 2, EXPRESSION_EYE_ROW])
        return (points - origin) / EXPRESSION_EYE_DISTANCE

    def step(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """One update; returns the loss terms."""
        self.network.train()
        self.network.trunk[: self.settings.frozen].eval()
        self._set_rate()
        face, points, signals, pose = (
            torch.as_tensor(batch[name]).to(self.device) for name in ("face", "points", "signals", "pose")
        )
        network = self.network
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            maps = network.maps(normalise(face))
        got = network.answers(*(out.float() for out in maps))
        wanted_points = self._in_eyes(points).flatten(1) - network.mean_points
        off = F.smooth_l1_loss(got[2], wanted_points, reduction="none", beta=_POINT_BETA)
        place = (off.reshape(-1, len(POINTS), 2) * self._point_weight).mean() / _POINT_BETA
        wanted = (signals - network.signal_mean) / network.signal_scale
        error = F.smooth_l1_loss(got[1], wanted, reduction="none", beta=_SIGNAL_BETA)
        signal = (error * self._signal_weight).mean()
        turn = F.smooth_l1_loss(got[0], pose / POSE_UNIT, beta=_POSE_BETA)
        # Most people look into the camera, so a network can infer the rotation of the eyes from that of the head. The
        # loss on the gaze, which is the sum of both rotations, prevents this.
        eyes = (got[1] - wanted) * network.signal_scale @ self._turns
        missed = (eyes + (got[0] - pose / POSE_UNIT)[:, :2] * POSE_UNIT) / _GAZE_UNIT
        gaze = F.smooth_l1_loss(missed, torch.zeros_like(missed))
        s = self.settings
        loss = s.points * place + s.signals * signal + s.pose * turn + s.gaze * gaze
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        self.optimiser.step()
        self.steps_done += 1
        update_average(self.average, network, s.ema, self.steps_done - self.started_at)
        terms = {"points": place, "signals": signal, "pose": turn, "gaze": gaze}
        return {name: float(value.detach()) for name, value in terms.items()}

    def _set_rate(self) -> None:
        s = self.settings
        factor = min(1.0, (self.steps_done - self.started_at + 1) / s.warmup)
        factor *= max(0.02, min(1.0, (s.steps - self.steps_done) / s.decay))
        for group in self.optimiser.param_groups:
            group["lr"] = s.rate * factor

    @torch.no_grad()
    def look(self, faces: np.ndarray, chunk: int = 64) -> dict[str, np.ndarray]:
        """Outputs of the averaged network in their units, as float32; faces: crops uint8 [N, 144, 128, 3]."""
        parts = []
        for start in range(0, len(faces), chunk):
            planes = normalise(torch.as_tensor(faces[start : start + chunk]).to(self.device))
            parts.append([out.cpu().numpy() for out in in_units(self.average, self.average(planes))])
        return {
            name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(("pose", "signals", "points"))
        }

    def state(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        return {
            "step": self.steps_done,
            "started_at": self.started_at,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()` of an earlier run."""
        for name in ("network", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.steps_done, self.started_at = int(state["step"]), int(state["started_at"])

    def load_warm(self, state: Mapping[str, Any]) -> None:
        """Start from the weights that deploy.write_warm wrote, with a new optimiser."""
        weights = floats(state["network"])
        self.network.load_state_dict(weights)
        self.average.load_state_dict(weights)
        self.steps_done = self.started_at = int(state["step"])


assert len(BLENDSHAPES) == 51
