"""The gate: FIQA and geometry filter, IQA ranks (DESIGN 4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamgate.config import GateConfig
from streamgate.frames import Evidence, Face, GateResult, Measure, Status

REASONS = (
    "serfiq_low", "ifqa_low", "yaw", "pitch", "small", "edge", "blurred", "dark", "bright", "occluded",
    "eyes_closed",
)  # fmt: skip
"""Why a face does not pass, in the order in which records list them."""


@dataclass(frozen=True, slots=True)
class GateRules:
    """The limits of a run, applied to the measures of its set.

    A face passes when every measure of the set is ok and inside its limit. `judge` may be asked early: what
    is not scored yet gives no reason, so a result with reasons is final while one without is not a pass.
    """

    config: GateConfig
    names: tuple[str, ...]

    def judge(
        self, face: Face, evidence: Evidence, measures: Mapping[str, Measure], width: int, height: int
    ) -> GateResult:
        """Judge one face of an upright frame of `width` x `height` source pixels."""
        config = self.config
        found = set()

        def below(name: str, limit: float) -> bool:
            scalar = measures[name].scalar if name in self.names else None
            return scalar is not None and scalar < limit

        if below("serfiq", config.min_serfiq):
            found.add("serfiq_low")
        if below("ifqa", config.min_ifqa):
            found.add("ifqa_low")
        for name, limit in (("yaw", config.max_yaw), ("pitch", config.max_pitch)):
            raw = measures[name].raw if name in self.names else None
            if raw is not None and abs(raw) > limit:
                found.add(name)
        if min(face.box[2] - face.box[0], face.box[3] - face.box[1]) < config.min_size_px(width, height):
            found.add("small")
        inside = measures["edge"].raw if "edge" in self.names else None
        if inside is not None and inside < config.min_edge:
            found.add("edge")
        if below("sharpness", config.min_sharpness):
            found.add("blurred")
        if below("exposure", config.min_exposure):
            found.add("dark" if (evidence.mean_luma or 0.0) < 128.0 else "bright")
        if below("occlusion", config.min_occlusion):
            found.add("occluded")
        if below("eyes", config.min_eyes):
            found.add("eyes_closed")
        complete = all(measures[name].status is Status.OK for name in self.names)
        return GateResult(complete and not found, tuple(reason for reason in REASONS if reason in found))
