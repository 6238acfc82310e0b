"""The gate: FIQA and geometry filter, IQA ranks (DESIGN 4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamgate.config import GateConfig
from streamgate.frames import Array, Evidence, Face, GateResult, Measure, Pose, Status

REASONS = (
    "serfiq_low", "ifqa_low", "yaw", "pitch", "small", "edge", "blurred", "dark", "bright", "occluded",
    "eyes_closed",
)  # fmt: skip
"""Why a face does not pass, in the order in which records list them."""


TURNED = 35.0
"""Degrees of yaw or pitch beyond which an eye or half the mouth is out of sight."""

_FRONTAL_REASONS = ("serfiq_low", "occluded", "eyes_closed")


@dataclass(frozen=True, slots=True)
class GateRules:
    """The limits of a run, applied to the measures of its set.

    A face passes when every measure of the set is ok and inside its limit. `judge` may be asked early: what
    is not scored yet gives no reason, so a result with reasons is final while one without is not a pass.
    """

    config: GateConfig
    names: tuple[str, ...]
    all_poses: bool = False
    """Turned heads are wanted: what networks say of them that learned on frontal faces turns none away."""

    def judge(
        self, face: Face, evidence: Evidence, measures: Mapping[str, Measure], width: int, height: int
    ) -> GateResult:
        """Judge one face of an upright frame of `width` x `height` source pixels."""
        config = self.config
        found: dict[str, float] = {}

        def floor(reason: str, value: float | None, limit: float) -> None:
            if value is not None and value < limit:
                found[reason] = 1.0 - value / limit

        def scalar(name: str) -> float | None:
            return measures[name].scalar if name in self.names else None

        floor("serfiq_low", scalar("serfiq"), config.min_serfiq)
        floor("ifqa_low", scalar("ifqa"), config.min_ifqa)
        for name, limit in (("yaw", config.max_yaw), ("pitch", config.max_pitch)):
            raw = measures[name].raw if name in self.names else None
            if raw is not None and abs(raw) > limit:
                found[name] = min(1.0, (abs(raw) - limit) / 90.0)
        floor("small", shorter_side(face.box), config.min_size_px(width, height))
        floor("edge", measures["edge"].raw if "edge" in self.names else None, config.min_edge)
        floor("blurred", scalar("sharpness"), config.min_sharpness)
        floor("dark" if (evidence.mean_luma or 0.0) < 128.0 else "bright", scalar("exposure"), config.min_exposure)
        floor("occluded", scalar("occlusion"), config.min_occlusion)
        floor("eyes_closed", scalar("eyes"), config.min_eyes)
        if self.all_poses and evidence.pose is not None and _is_turned(evidence.pose):
            for reason in _FRONTAL_REASONS:
                found.pop(reason, None)
        complete = all(measures[name].status is Status.OK for name in self.names)
        reasons = tuple(reason for reason in REASONS if reason in found)
        return GateResult(complete and not found, reasons, max(found.values(), default=0.0))


def shorter_side(box: Array) -> float:
    """What a face's smallest size is a limit of: the shorter side of its box [x1, y1, x2, y2], in pixels."""
    return float(min(box[2] - box[0], box[3] - box[1]))


def _is_turned(pose: Pose) -> bool:
    return max(abs(pose.yaw), abs(pose.pitch)) > TURNED
