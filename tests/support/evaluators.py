"""Judges without networks, for tests of what is concluded from evidence."""

from __future__ import annotations

from collections.abc import Iterable

from streamgate.config import load_config
from streamgate.measures import Sigmoid, built_in_measures
from streamgate.scoring.calibration import Calibration
from streamgate.scoring.evaluator import Evaluator

CARDS = {"serfiq": "card-a", "ifqa": "card-b"}
"""Calibration ids of the measures whose mapping a card has."""

NAMES = (
    "serfiq", "ifqa", "yaw", "pitch", "roll", "size", "edge", "sharpness", "exposure", "occlusion", "eyes",
)  # fmt: skip
"""The set of these judges: a measure that is added later has tests of its own."""


def settings_for(names: Iterable[str] = NAMES) -> list[str]:
    """Settings with which these measures make up the set."""
    others = {spec.name for spec in built_in_measures()} - set(names)
    return [f"measures.{name}.use=false" for name in sorted(others)]


def calibration(settings: Iterable[str] = (), **mappings: Sigmoid) -> Calibration:
    """What a run with all weights has; cards map with x0 = 0.5, w = 0.1 unless `mappings` says otherwise."""
    return Calibration({**dict.fromkeys(CARDS, Sigmoid(0.5, 0.1)), **mappings}, {}, CARDS).under(
        load_config("studio", settings)
    )


def evaluator(*settings: str) -> Evaluator:
    """Preset studio with settings, of any quality, so that each limit shows by itself."""
    return Evaluator(load_config("studio", [*settings_for(), "keep.min_quality=0", *settings]), calibration(settings))


def evaluator_of(**weights: float) -> Evaluator:
    """A judge whose set is these measures, with these weights."""
    used = [
        setting
        for name, weight in weights.items()
        for setting in (f"measures.{name}.use=true", f"measures.{name}.weight={weight}")
    ]
    return evaluator(*settings_for(weights), *used)
