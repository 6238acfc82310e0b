"""Judges without networks, for tests of what is concluded from evidence."""

from __future__ import annotations

from collections.abc import Iterable

from streamgate.config import load_config
from streamgate.measures import Sigmoid, built_in_measures
from streamgate.scoring.calibration import Calibration
from streamgate.scoring.judge import Judge

CARDS = {"serfiq": "card-a", "ifqa": "card-b", "occlusion": "card-c", "eyes": "card-d"}
"""Calibration ids of the measures whose mapping a card has."""


def calibration(settings: Iterable[str] = (), **mappings: Sigmoid) -> Calibration:
    """What a run with all weights has; cards map with x0 = 0.5, w = 0.1 unless `mappings` says otherwise."""
    return Calibration({**dict.fromkeys(CARDS, Sigmoid(0.5, 0.1)), **mappings}, {}, CARDS).under(
        load_config("studio", settings)
    )


def judge(*settings: str) -> Judge:
    """Preset studio with settings."""
    return Judge(load_config("studio", settings), calibration(settings))


def judge_of(**weights: float) -> Judge:
    """A judge whose set is these measures, with these weights."""
    others = [spec.name for spec in built_in_measures() if spec.name not in weights]
    return judge(
        *(f"measures.{name}.use=false" for name in others),
        *(f"measures.{name}.weight={weight}" for name, weight in weights.items()),
    )
