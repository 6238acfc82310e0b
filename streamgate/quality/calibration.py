"""From raw figures to scalars 0..100, and the id under which qualities compare."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamgate.config import Config
from streamgate.frames import MEASURE_NAMES, Status


@dataclass(frozen=True, slots=True)
class SigmoidMapping:
    """scalar = 100 / (1 + exp(-(raw - x0) / w)), DESIGN 4."""

    x0: float
    w: float

    def scalar(self, raw: float) -> float:
        """0..100; far out values saturate instead of overflowing."""
        return 100.0 / (1.0 + math.exp(min(700.0, max(-700.0, -(raw - self.x0) / self.w))))


@dataclass(frozen=True, slots=True)
class Calibration:
    """How this run turns evidence into scalars.

    Attributes:
        mappings: measure -> mapping, for the measures that need one.
        absent: measure -> why it cannot be had in this run (NO_WEIGHTS or UNCALIBRATED).
        learned_ids: calibration ids of the learned measures' cards.
    """

    mappings: Mapping[str, SigmoidMapping]
    absent: Mapping[str, Status] = field(default_factory=dict)
    learned_ids: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return {
            "mappings": {name: [mapping.x0, mapping.w] for name, mapping in sorted(self.mappings.items())},
            "absent": {name: str(status) for name, status in sorted(self.absent.items())},
            "learned": dict(sorted(self.learned_ids.items())),
        }

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any]) -> Calibration:
        """`summary` turned round. Raises KeyError, TypeError or ValueError for what is none."""
        return cls(
            {name: SigmoidMapping(float(x0), float(w)) for name, (x0, w) in summary["mappings"].items()},
            {name: Status(status) for name, status in summary["absent"].items()},
            dict(summary["learned"]),
        )

    def under(self, config: Config) -> Calibration:
        """The same with the mappings that a configuration gives."""
        given = {name: getattr(config.measures, name) for name in ("size", "edge", "sharpness", "exposure")}
        mappings = {name: SigmoidMapping(section.x0, section.w) for name, section in given.items()}
        return Calibration({**self.mappings, **mappings}, self.absent, self.learned_ids)


def measure_set(config: Config, calibration: Calibration) -> tuple[str, ...]:
    """The run's measures: the preset's that have weights and calibration, in the order of MEASURE_NAMES."""
    return tuple(
        name for name in MEASURE_NAMES if name in config.measures.set and name not in calibration.absent
    )


def calibration_id(config: Config, calibration: Calibration) -> str:
    """A short name of everything that decides what a quality figure means: set, mappings and weights of fusion.

    Qualities are comparable only between records with the same id.
    """
    names = measure_set(config, calibration)
    meaning = {
        "set": names,
        "fusion": {name: getattr(config.fusion, name) for name in names},
        "mappings": {
            name: (mapping.x0, mapping.w) for name, mapping in calibration.mappings.items() if name in names
        },
        "learned": {name: text for name, text in calibration.learned_ids.items() if name in names},
        "serfiq": config.serfiq.model_dump() if config.serfiq.method == "sampled" else "closed",
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:12]
