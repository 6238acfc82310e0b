"""Maps raw values to scalars 0..100, and computes the id under which qualities are comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamgate.config import Config
from streamgate.errors import WeightsError
from streamgate.faces import Status
from streamgate.frames import Array
from streamgate.measures import MeasureSpec, Sigmoid
from streamgate.measures.serfiq import sample_embeddings, sampled_spread
from streamgate.networks import Networks
from streamgate.weights import LogisticCalibration, SerfiqCalibration


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a run maps raw values to scalars.

    Attributes:
        mappings: mapping of each measure whose mapping is not fixed by its spec.
        absent: for each measure that is not available in this run, the reason (NO_WEIGHTS or UNCALIBRATED).
        learned_ids: for each learned measure, the calibration id on the card of its weights.
    """

    mappings: Mapping[str, Sigmoid]
    absent: Mapping[str, Status] = field(default_factory=dict)
    learned_ids: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_networks(cls, networks: Networks, config: Config) -> Calibration:
        """Mappings from the configuration and from the cards of the available weights.

        A measure is absent, with the corresponding status, if its network is missing or lacks the output, or if the
        weights have no calibration.
        """
        absent: dict[str, Status] = {}
        mappings: dict[str, Sigmoid] = {}
        learned: dict[str, str] = {}
        for spec in recorded_measures(config):
            if spec.source != "pixels" and spec.output not in networks.outputs(spec.source):
                absent[spec.name] = Status.NO_WEIGHTS
                continue
            if spec.card is not None:
                learned[spec.name] = networks.crop_measures[spec.name].identity
            if spec.mapping is None:
                card = networks.calibration(spec.source, spec.name)
                if card is None:
                    absent[spec.name] = Status.UNCALIBRATED
                else:
                    mappings[spec.name] = _mapping_of(card)
                    learned[spec.name] = card.calibration_id
        return cls(mappings, absent, learned).under(config)

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any]) -> Calibration:
        """The inverse of `summary`. Raises KeyError, TypeError or ValueError if the values are invalid."""
        if not all(w for _, w in summary["mappings"].values()):
            raise ValueError("a mapping has a width of 0")
        return cls(
            {name: Sigmoid(float(x0), float(w)) for name, (x0, w) in summary["mappings"].items()},
            {name: Status(status) for name, status in summary["absent"].items()},
            dict(summary["learned"]),
        )

    def summary(self) -> dict[str, Any]:
        """The whole calibration as JSON values."""
        return {
            "mappings": {name: [mapping.x0, mapping.w] for name, mapping in sorted(self.mappings.items())},
            "absent": {name: str(status) for name, status in sorted(self.absent.items())},
            "learned": dict(sorted(self.learned_ids.items())),
        }

    def missing(self, config: Config) -> dict[str, str]:
        """The measures in use that are not available, each with a status that gives the reason."""
        return {name: str(self.absent[name]) for name in config.measures.used if name in self.absent}

    def under(self, config: Config) -> Calibration:
        """A copy that uses the mappings set in a configuration."""
        given = {name: config.measures[name].mapping for name in config.measures.recorded}
        chosen = {name: mapping for name, mapping in given.items() if mapping is not None}
        # An uncalibrated measure becomes available once the configuration gives it a mapping.
        absent = {
            name: status
            for name, status in self.absent.items()
            if status is not Status.UNCALIBRATED or name not in chosen
        }
        return Calibration({**self.mappings, **chosen}, absent, self.learned_ids)

    def scale_of(self, spec: MeasureSpec) -> Callable[[float], float]:
        """The mapping from raw values to scalars, for a measure that is not absent. Raises ValueError if the measure
        has no mapping."""
        if spec.name not in self.mappings:
            if not callable(spec.mapping):
                raise ValueError(f"there is no mapping for {spec.name}")
            return spec.mapping
        mapping = self.mappings[spec.name]
        if spec.better == "higher":
            return mapping.scalar
        falling = Sigmoid(-mapping.x0, mapping.w)
        if spec.better == "lower":
            return lambda raw: falling.scalar(-raw)
        return lambda raw: falling.scalar(-abs(raw))


def recorded_measures(config: Config) -> list[MeasureSpec]:
    """The measures that are listed in records, in the order of the records."""
    recorded = config.measures.recorded
    return [spec for spec in config.measures.specs if spec.name in recorded]


def measure_set(config: Config, calibration: Calibration) -> tuple[str, ...]:
    """The run's measures, in the order of records: those of `Config.measure_set` with weights and a calibration."""
    return tuple(name for name in config.measure_set if name not in calibration.absent)


def calibration_id(config: Config, calibration: Calibration) -> str:
    """A short id of everything that determines what a quality means: the set, its mappings, versions and weights.

    Qualities are comparable only between records with the same id.
    """
    names = measure_set(config, calibration)
    specs = [spec for spec in config.measures.specs if spec.name in names]
    meaning: dict[str, Any] = {
        "set": names,
        "fusion": {name: config.measures[name].weight for name in names},
        "mappings": {
            name: (mapping.x0, mapping.w) for name, mapping in calibration.mappings.items() if name in names
        },
        "learned": {name: text for name, text in calibration.learned_ids.items() if name in names},
        "serfiq": config.serfiq.model_dump() if config.serfiq.method == "sampled" else "closed",
    }
    fixed = {spec.name: _name_of(spec.mapping) for spec in specs if callable(spec.mapping)}
    changed = {
        "fixed": fixed,
        "versions": {spec.name: spec.version for spec in specs if spec.version != 1},
    }
    meaning |= {key: value for key, value in changed.items() if value}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:12]


def _mapping_of(card: SerfiqCalibration | LogisticCalibration) -> Sigmoid:
    return Sigmoid(card.r, 1.0 / card.alpha) if isinstance(card, SerfiqCalibration) else Sigmoid(card.x0, card.w)


def _name_of(function: Callable[[float], float]) -> str:
    return str(getattr(function, "__name__", repr(function)))


def sampled_head(networks: Networks, config: Config) -> Callable[[Array], float] | None:
    """A function that computes SER-FIQ's d from features (K,) by sampling; None unless `serfiq.method` is "sampled".

    Raises WeightsError if the weights lack the drop rate or the last layer.
    """
    if config.serfiq.method != "sampled":
        return None
    card = networks.calibration("recognizer", "serfiq")
    if not isinstance(card, SerfiqCalibration):
        raise WeightsError(
            "serfiq.method = 'sampled' requires a drop rate, which this recognizer's card lacks; "
            "set serfiq.method = 'closed'"
        )
    weight, bias = networks.recognizer.last_affine()
    samples, seed = config.serfiq.samples, config.serfiq.seed

    def head(features: Array) -> float:
        drawn = sample_embeddings(weight, features, bias, card.drop_rate, samples, seed)
        return sampled_spread(drawn)

    return head
