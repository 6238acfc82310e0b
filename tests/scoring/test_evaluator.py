"""Measures, fusion and the gate (DESIGN 4.3, 4.4)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.frames import Evidence, Face, Measure, Pose, Status
from streamgate.measures import Sigmoid, built_in_measures
from streamgate.scoring.evaluator import Evaluator
from support.evaluators import NAMES, calibration, evaluator, evaluator_of

SIZE = (1920, 1080)


def good_evidence(**changes: float | None) -> Evidence:
    values = {
        "spread": 0.5, "ifqa": 0.9, "inter_eye": 110.0, "inside": 1.0, "sharpness": 0.9, "exposure": 0.95,
        "mean_luma": 120.0, "visible": 1.0, "eyes_open": 1.0,
    }  # fmt: skip
    known = {name: value for name, value in {**values, **changes}.items() if value is not None}
    return Evidence(known, embedding=np.ones(4, np.float32), pose=Pose(2.0, -3.0, 5.0))


def good_face(side: float = 300.0) -> Face:
    landmarks = np.array([[100, 100], [200, 100], [150, 160], [110, 200], [190, 200]], np.float32)
    return Face(np.array([0, 0, side, side], np.float32), landmarks, 0.99)


def reasons(by: Evaluator, evidence: Evidence, face: Face | None = None) -> tuple[str, ...]:
    result = by.gate(face or good_face(), evidence, by.measures(evidence), *SIZE)
    assert result.passed is not bool(result.reasons)
    return result.reasons


def measures_of(**scalars: float | None) -> dict[str, Measure]:
    return {
        name: Measure.missing(Status.NOT_SCORED) if value is None else Measure.ok(value, value)
        for name, value in scalars.items()
    }


def test_scalars_follow_their_formulas() -> None:
    measures = evaluator().measures(good_evidence())
    assert list(measures) == [spec.name for spec in built_in_measures()]
    assert all(measures[name].status is Status.OK for name in NAMES)
    assert measures["serfiq"].raw == pytest.approx(2 / (1 + math.exp(0.5)))
    assert measures["size"].scalar == pytest.approx(100 / (1 + math.exp(-(110 - 70) / 20)))
    assert measures["yaw"].scalar == pytest.approx(100 / (1 + math.exp((2 - 12.9) / 3.6)))


@pytest.mark.parametrize("angle", ["yaw", "pitch", "roll"])
def test_a_turned_head_counts_as_people_count_it(angle: str) -> None:
    """Up to 10 degrees few mind, 15 are a flaw, 25 are bad; to either side alike."""
    scalars = []
    for degrees in (0, 10, 15, 25, -25):
        pose = Pose(**{"yaw": 0.0, "pitch": 0.0, "roll": 0.0, angle: degrees})
        scalars.append(evaluator().measures(dataclasses.replace(good_evidence(), pose=pose))[angle].scalar)
    assert scalars[3] == scalars[4]
    assert scalars[0] > 95 and scalars[1] > 65 and 30 < scalars[2] < 75 and scalars[3] < 20


def test_a_mapping_saturates_instead_of_overflowing() -> None:
    assert Sigmoid(0.5, 0.1).scalar(-1e9) == pytest.approx(0)
    assert Sigmoid(0.5, 0.1).scalar(1e9) == pytest.approx(100)


def test_what_is_missing_says_why_and_carries_no_figure() -> None:
    without = dataclasses.replace(calibration(), absent={"ifqa": Status.NO_WEIGHTS})
    evidence = good_evidence(spread=None, sharpness=None)
    evidence.failed.add("sharpness")
    measures = Evaluator(load_config(), without).measures(evidence)
    assert measures["ifqa"] == Measure(None, None, Status.NO_WEIGHTS)
    assert measures["serfiq"] == Measure(None, None, Status.NOT_SCORED)
    assert measures["sharpness"] == Measure(None, None, Status.ERROR)


def test_a_figure_that_is_not_finite_is_an_error() -> None:
    assert Measure.ok(math.nan, 3.0) == Measure(None, None, Status.ERROR)
    assert Measure.ok(3.0, math.inf) == Measure(None, None, Status.ERROR)


def test_quality_is_the_weighted_geometric_mean() -> None:
    quality = evaluator_of(yaw=1.0, size=3.0).quality(measures_of(yaw=80.0, size=40.0))
    assert quality == pytest.approx((80.0 * 40.0**3) ** 0.25)


def test_scalars_are_floored_at_one() -> None:
    assert evaluator_of(yaw=1.0, size=1.0).quality(measures_of(yaw=0.0, size=100.0)) == pytest.approx(10.0)


def test_quality_needs_the_whole_set_and_its_bound_takes_what_is_missing_as_best() -> None:
    two = evaluator_of(yaw=1.0, size=1.0)
    partly = measures_of(yaw=25.0, size=None)
    assert two.quality(partly) is None
    assert two.bound(partly) == pytest.approx(50.0)
    partly["size"] = Measure.missing(Status.ERROR)
    assert two.bound(partly) == 0.0


def test_a_ceiling_is_for_what_is_not_known_yet() -> None:
    two = evaluator_of(ifqa=2.0, sharpness=0.5)
    looked_at = measures_of(ifqa=None, sharpness=50.0)
    assert two.bound(looked_at) > two.bound(looked_at, {"ifqa": 60.0})
    assert two.bound(looked_at, {"ifqa": 60.0}) == pytest.approx((60.0**2 * 50.0**0.5) ** (1 / 2.5))
    known = measures_of(ifqa=90.0, sharpness=50.0)
    assert two.bound(known, {"ifqa": 60.0}) == two.bound(known) == two.quality(known)


def test_only_a_turn_that_is_not_known_is_guessed() -> None:
    by = evaluator()
    evidence = good_evidence()
    known = by.measures(evidence)
    assert by.guessed(good_face(), evidence, known) == known
    evidence.pose = None
    guessed = by.guessed(good_face(), evidence, by.measures(evidence))
    assert guessed["yaw"].status is Status.OK and guessed["pitch"].status is Status.NOT_SCORED
    evidence.values |= {"head_yaw": 12.0, "head_pitch": -7.0}
    guessed = by.guessed(good_face(), evidence, by.measures(evidence))
    assert (guessed["yaw"].raw, guessed["pitch"].raw) == (12.0, -7.0)


def test_a_face_with_everything_in_order_passes() -> None:
    assert reasons(evaluator(), good_evidence()) == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"spread": 3.0}, "serfiq_low"),
        ({"ifqa": 0.1}, "ifqa_low"),
        ({"inside": 0.5}, "edge"),
        ({"sharpness": 0.001}, "blurred"),
        ({"exposure": 0.1, "mean_luma": 20.0}, "dark"),
        ({"exposure": 0.1, "mean_luma": 240.0}, "bright"),
        ({"visible": 0.9}, "occluded"),
        ({"eyes_open": 0.04}, "eyes_closed"),
    ],
)
def test_each_limit_has_its_reason(change: dict[str, float], reason: str) -> None:
    assert reasons(evaluator(), good_evidence(**change)) == (reason,)


@pytest.mark.parametrize(("pose", "reason"), [(Pose(-40.0, 0.0, 0.0), "yaw"), (Pose(0.0, 40.0, 0.0), "pitch")])
def test_a_head_may_be_turned_to_neither_side(pose: Pose, reason: str) -> None:
    evidence = good_evidence()
    evidence.pose = pose
    assert reasons(evaluator(), evidence) == (reason,)
    assert reasons(evaluator(f"measures.{reason}.max=41"), evidence) == ()


def test_reasons_come_in_the_order_of_the_measures() -> None:
    evidence = good_evidence(eyes_open=0.0, sharpness=0.0, spread=3.0, inside=0.1)
    assert reasons(evaluator(), evidence) == ("serfiq_low", "edge", "blurred", "eyes_closed")


def test_of_turned_heads_that_are_wanted_networks_that_know_frontal_faces_say_nothing() -> None:
    evidence = good_evidence(eyes_open=0.04, visible=0.2, spread=3.0)
    evidence.pose = Pose(-60.0, 0.0, 0.0)
    # Of a profile one eye is out of sight, wanted or not.
    assert reasons(evaluator(), evidence) == ("serfiq_low", "yaw")
    everywhere = evaluator("keep.poses=all")
    assert reasons(everywhere, evidence) == ()
    evidence.pose = Pose(-20.0, 0.0, 0.0)
    assert reasons(everywhere, evidence) == ("serfiq_low", "occluded", "eyes_closed")


def test_small_counts_the_shorter_side_of_the_box_as_share_or_pixels() -> None:
    evidence = good_evidence()
    assert reasons(evaluator(), evidence, good_face(107)) == ("small",)
    assert reasons(evaluator(), evidence, good_face(109)) == ()
    pixels = evaluator("measures.size.min=64")
    assert reasons(pixels, evidence, good_face(63)) == ("small",)
    assert reasons(pixels, evidence, good_face(65)) == ()


def test_the_worse_a_face_the_larger_its_shortfall() -> None:
    by = evaluator()

    def shortfall(**change: float) -> float:
        evidence = good_evidence(**change)
        return by.gate(good_face(), evidence, by.measures(evidence), *SIZE).shortfall

    assert 0.0 == shortfall() < shortfall(visible=0.95) < shortfall(visible=0.9) <= 1.0


def test_a_face_not_scored_yet_has_no_reason_and_does_not_pass() -> None:
    by = evaluator()
    evidence = good_evidence(spread=None)
    result = by.gate(good_face(), evidence, by.measures(evidence), *SIZE)
    assert not result.passed and result.reasons == ()


def test_a_measure_that_is_not_used_rejects_nothing_and_is_still_recorded() -> None:
    without = evaluator("measures.eyes.use=false")
    evidence = good_evidence(eyes_open=0.04)
    assert reasons(without, evidence) == ()
    assert without.measures(evidence)["eyes"].status is Status.OK
    assert without.quality(without.measures(evidence)) is not None


def test_a_face_below_the_smallest_quality_fails_and_says_so() -> None:
    poor = good_evidence(sharpness=0.0, spread=0.9)
    by = evaluator("keep.min_quality=0", "measures.serfiq.min=0", "measures.sharpness.min=0")
    quality = by.quality(by.measures(poor))
    assert quality is not None and not reasons(by, poor)
    above = evaluator(f"keep.min_quality={quality + 1}", "measures.serfiq.min=0", "measures.sharpness.min=0")
    assert reasons(above, poor) == ("low_quality",)
    assert above.gate(good_face(), poor, above.measures(poor), *SIZE).shortfall == pytest.approx(1 / (quality + 1))
    below = evaluator(f"keep.min_quality={quality - 1}", "measures.serfiq.min=0", "measures.sharpness.min=0")
    assert not reasons(below, poor)


def test_where_turned_heads_or_the_least_bad_face_are_wanted_no_quality_is_too_low() -> None:
    assert load_config("studio").keep.min_quality == 45
    assert load_config("studio", ["keep.poses=all"]).keep.min_quality == 0
    assert load_config("studio", ["keep.poses=all", "keep.min_quality=30"]).keep.min_quality == 30
    assert load_config("live").keep.min_quality == 0
