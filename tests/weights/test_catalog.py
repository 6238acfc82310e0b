"""The catalog of weights and the descriptions that receipts and cards carry."""

from __future__ import annotations

import re

import pytest

from streamgate.convert.checkpoints import CONVERTERS
from streamgate.errors import WeightsError
from streamgate.weights.catalog import (
    REQUIRED_ROLES,
    InputSpec,
    LogisticCalibration,
    SerfiqCalibration,
    load_catalog,
    parse_calibration,
    parse_input,
)


def test_the_standard_tier_fills_every_required_role():
    filled = {role for entry in load_catalog() if entry.tier == "standard" for role in entry.roles}
    assert set(REQUIRED_ROLES) <= filled


def test_every_entry_can_be_fetched_and_converted():
    entries = load_catalog()
    assert len({entry.name for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.tier in ("standard", "liveness") and entry.converter in CONVERTERS
        assert entry.licence and entry.training_data
        for source in entry.source:
            assert re.fullmatch(r"[0-9a-f]{64}", source.sha256) and source.size > 0
            pinned = r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/.+"
            assert re.fullmatch(pinned, source.url)


def test_the_recognizers_calibration_is_for_the_drop_rate_in_its_graph():
    (entry,) = [entry for entry in load_catalog() if "recognizer" in entry.roles]
    assert isinstance(entry.calibration, SerfiqCalibration)
    assert entry.calibration.drop_rate == entry.options["drop_rate"]


def test_calibrations_are_read_and_checked():
    assert parse_calibration(None, "x") is None
    card = {"calibration_id": "a/1", "x0": 0.5, "w": 0.1}
    assert parse_calibration(card, "x") == LogisticCalibration("a/1", 0.5, 0.1)
    for wrong in ({"x0": 0.5, "w": 0.1}, {"id": "a", "x0": 0.5, "w": 0}, {"id": "a", "x0": "high", "w": 1},
                  {"id": "a", "drop_rate": 1.0, "alpha": 3, "r": 0.5}):  # fmt: skip
        with pytest.raises(WeightsError, match="calibration is not readable"):
            parse_calibration(wrong, "x")


def test_inputs_are_read_and_checked():
    assert parse_input({}, "x") == InputSpec()
    spec = parse_input({"dtype": "float32", "mean": [1, 2, 3], "scale": [0.5] * 3, "colour": "BGR"}, "x")
    assert spec == InputSpec("float32", "BGR", (1.0, 2.0, 3.0), (0.5, 0.5, 0.5))
    for wrong in ({"dtype": "float16"}, {"colour": "GRB"}, {"mean": [1, 2]}, {"mean": [9, 9, 9]}):
        with pytest.raises(WeightsError):
            parse_input(wrong, "x")
