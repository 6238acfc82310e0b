"""Measures, fusion and the gate (DESIGN 4.3, 4.4)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.frames import MEASURE_NAMES, Evidence, Face, Measure, Pose, Status
from streamgate.quality.calibration import Calibration, SigmoidMapping, calibration_id, measure_set
from streamgate.quality.gate import GateRules
from streamgate.quality.measures import Fusion, measure_all
from streamgate.quality.pose import angle_scalar

MAPPING = SigmoidMapping(0.5, 0.1)
CALIBRATION = Calibration(dict.fromkeys(MEASURE_NAMES, MAPPING) | {"size": SigmoidMapping(70.0, 20.0)})


def good_evidence() -> Evidence:
    return Evidence(
        embedding=np.ones(4, np.float32),
        spread=0.5,
        pose=Pose(2.0, -3.0, 5.0),
        ifqa=0.9,
        inter_eye=110.0,
        inside=1.0,
        sharpness=0.9,
        exposure=0.95,
        mean_luma=120.0,
        visible=1.0,
        eyes_open=1.0,
    )


def good_face(side: float = 300.0) -> Face:
    landmarks = np.array([[100, 100], [200, 100], [150, 160], [110, 200], [190, 200]], np.float32)
    return Face(np.array([0, 0, side, side], np.float32), landmarks, 0.99)


def test_scalars_follow_their_formulas() -> None:
    measures = measure_all(good_evidence(), CALIBRATION)
    assert set(measures) == set(MEASURE_NAMES)
    assert all(measure.status is Status.OK for measure in measures.values())
    assert measures["serfiq"].raw == pytest.approx(2 / (1 + math.exp(0.5)))
    assert measures["size"].scalar == pytest.approx(100 / (1 + math.exp(-(110 - 70) / 20)))
    assert measures["yaw"].scalar == pytest.approx(100 * math.cos(math.radians(2)) ** 2)


@pytest.mark.parametrize(("degrees", "scalar"), [(0, 100), (60, 25), (-60, 25), (90, 0), (120, 0)])
def test_angles_map_to_the_squared_cosine(degrees: float, scalar: float) -> None:
    assert angle_scalar(degrees) == pytest.approx(scalar, abs=1e-9)


def test_a_mapping_saturates_instead_of_overflowing() -> None:
    assert MAPPING.scalar(-1e9) == pytest.approx(0)
    assert MAPPING.scalar(1e9) == pytest.approx(100)


def test_what_is_missing_says_why_and_carries_no_figure() -> None:
    calibration = dataclasses.replace(CALIBRATION, absent={"ifqa": Status.NO_WEIGHTS})
    evidence = dataclasses.replace(good_evidence(), spread=None, sharpness=None, failed={"sharpness"})
    measures = measure_all(evidence, calibration)
    assert measures["ifqa"] == Measure(None, None, Status.NO_WEIGHTS)
    assert measures["serfiq"] == Measure(None, None, Status.NOT_SCORED)
    assert measures["sharpness"] == Measure(None, None, Status.ERROR)


def test_a_figure_that_is_not_finite_is_an_error() -> None:
    assert Measure.ok(math.nan, 3.0) == Measure(None, None, Status.ERROR)
    assert Measure.ok(3.0, math.inf) == Measure(None, None, Status.ERROR)


def fusion(**weights: float) -> Fusion:
    return Fusion(tuple(weights), weights)


def measures_of(**scalars: float | None) -> dict[str, Measure]:
    return {
        name: Measure.missing(Status.NOT_SCORED) if value is None else Measure.ok(value, value)
        for name, value in scalars.items()
    }


def test_quality_is_the_weighted_geometric_mean() -> None:
    quality = fusion(yaw=1.0, size=3.0).quality(measures_of(yaw=80.0, size=40.0))
    assert quality == pytest.approx((80.0 * 40.0**3) ** 0.25)


def test_scalars_are_floored_at_one() -> None:
    assert fusion(yaw=1.0, size=1.0).quality(measures_of(yaw=0.0, size=100.0)) == pytest.approx(10.0)


def test_quality_needs_the_whole_set_and_its_bound_takes_what_is_missing_as_best() -> None:
    fused = fusion(yaw=1.0, size=1.0)
    partly = measures_of(yaw=25.0, size=None)
    assert fused.quality(partly) is None
    assert fused.bound(partly) == pytest.approx(50.0)
    partly["size"] = Measure.missing(Status.ERROR)
    assert fused.bound(partly) == 0.0


def test_a_face_with_everything_in_order_passes() -> None:
    rules = GateRules(load_config().gate, MEASURE_NAMES)
    evidence = good_evidence()
    result = rules.judge(good_face(), evidence, measure_all(evidence, CALIBRATION), 1920, 1080)
    assert result.passed and result.reasons == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"spread": 3.0}, "serfiq_low"),
        ({"ifqa": 0.1}, "ifqa_low"),
        ({"pose": Pose(-40.0, 0.0, 0.0)}, "yaw"),
        ({"pose": Pose(0.0, 40.0, 0.0)}, "pitch"),
        ({"inside": 0.5}, "edge"),
        ({"sharpness": 0.01}, "blurred"),
        ({"exposure": 0.1, "mean_luma": 20.0}, "dark"),
        ({"exposure": 0.1, "mean_luma": 240.0}, "bright"),
        ({"visible": 0.2}, "occluded"),
        ({"eyes_open": 0.1}, "eyes_closed"),
    ],
)
def test_each_limit_has_its_reason(change: dict[str, object], reason: str) -> None:
    rules = GateRules(load_config().gate, MEASURE_NAMES)
    evidence = dataclasses.replace(good_evidence(), **change)
    result = rules.judge(good_face(), evidence, measure_all(evidence, CALIBRATION), 1920, 1080)
    assert not result.passed and result.reasons == (reason,)


def test_small_counts_the_shorter_side_of_the_box_as_share_or_pixels() -> None:
    evidence = good_evidence()
    measures = measure_all(evidence, CALIBRATION)
    studio = GateRules(load_config().gate, MEASURE_NAMES)
    assert studio.judge(good_face(107), evidence, measures, 1920, 1080).reasons == ("small",)
    assert studio.judge(good_face(109), evidence, measures, 1920, 1080).passed
    pixels = GateRules(load_config("studio", ["gate.min_size=64"]).gate, MEASURE_NAMES)
    assert pixels.judge(good_face(63), evidence, measures, 1920, 1080).reasons == ("small",)
    assert pixels.judge(good_face(65), evidence, measures, 1920, 1080).passed


def test_a_face_not_scored_yet_has_no_reason_and_does_not_pass() -> None:
    rules = GateRules(load_config().gate, MEASURE_NAMES)
    evidence = dataclasses.replace(good_evidence(), spread=None)
    result = rules.judge(good_face(), evidence, measure_all(evidence, CALIBRATION), 1920, 1080)
    assert not result.passed and result.reasons == ()


def test_measures_without_weights_leave_the_set_and_change_the_calibration_id() -> None:
    config = load_config()
    without = dataclasses.replace(CALIBRATION, absent={"ifqa": Status.NO_WEIGHTS})
    assert "ifqa" in measure_set(config, CALIBRATION)
    assert "ifqa" not in measure_set(config, without)
    assert calibration_id(config, CALIBRATION) != calibration_id(config, without)
    assert calibration_id(config, CALIBRATION) == calibration_id(load_config(), CALIBRATION)
    heavier = load_config("studio", ["fusion.size=2"])
    assert calibration_id(config, CALIBRATION) != calibration_id(heavier, CALIBRATION)
    stricter = load_config("studio", ["gate.max_yaw=10"])
    assert calibration_id(config, CALIBRATION) == calibration_id(stricter, CALIBRATION)
