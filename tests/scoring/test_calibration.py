"""Under which id qualities compare."""

from __future__ import annotations

import dataclasses

import pytest

from streamgate.config import load_config
from streamgate.faces import Status
from streamgate.measures import MeasureSpec, built_in_measures, registry
from streamgate.scoring.calibration import Calibration, calibration_id, measure_set
from support.evaluators import NAMES, calibration, evaluator, settings_for

USUAL = "68eb8c90e7a4"
"""Of `judges.calibration()`: it stays while nothing changes what a quality means."""


def changed(name: str, **what: object) -> tuple[MeasureSpec, ...]:
    return tuple(dataclasses.replace(spec, **what) if spec.name == name else spec for spec in built_in_measures())


def test_the_id_stays_while_nothing_changes_what_a_quality_means() -> None:
    assert evaluator().calibration_id == evaluator("measures.yaw.max=10", "keep.top_k=3").calibration_id == USUAL


def test_measures_without_weights_leave_the_set_and_change_the_id() -> None:
    config = load_config("studio", settings_for())
    without = dataclasses.replace(calibration(), absent={"ifqa": Status.NO_WEIGHTS})
    assert "ifqa" in measure_set(config, calibration())
    assert "ifqa" not in measure_set(config, without)
    assert calibration_id(config, without) != USUAL
    assert without.missing(config) == {"ifqa": "no_weights"}


@pytest.mark.parametrize(
    "setting", ["measures.size.weight=2", "measures.size.x0=60", "measures.yaw.use=false", "serfiq.method=sampled"]
)
def test_what_changes_the_meaning_of_a_quality_changes_the_id(setting: str) -> None:
    assert evaluator(setting).calibration_id != USUAL


@pytest.mark.parametrize("name", NAMES)
def test_so_does_the_version_of_any_measure_of_the_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "known_measures", lambda: changed(name, version=9))
    assert evaluator().calibration_id != USUAL
    without = evaluator(f"measures.{name}.use=false").calibration_id
    monkeypatch.undo()
    assert evaluator(f"measures.{name}.use=false").calibration_id == without


def test_so_does_another_fixed_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    def straight(degrees: float) -> float:
        return max(0.0, 100.0 - abs(degrees))

    monkeypatch.setattr(registry, "known_measures", lambda: changed("roll", mapping=straight))
    assert evaluator().calibration_id != USUAL


def test_a_calibration_survives_the_summary() -> None:
    found = dataclasses.replace(calibration(), absent={"ifqa": Status.UNCALIBRATED})
    assert Calibration.of_summary(found.summary()) == found


def test_where_low_or_near_zero_is_good_the_mapping_falls() -> None:
    (size,) = [spec for spec in built_in_measures() if spec.name == "size"]
    found = calibration()
    for better, good, bad in (("higher", 200.0, 10.0), ("lower", 10.0, 200.0), ("near zero", -10.0, -200.0)):
        scale = found.scale_of(dataclasses.replace(size, better=better))
        assert scale(good) > 90 > 10 > scale(bad)
    assert found.scale_of(dataclasses.replace(size, better="near zero"))(70.0) == pytest.approx(50.0)
