"""The evaluation of mixtures tells a score that a veil fools from one that it does not."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("onnxruntime")

from models.ifqa import mixtures, veiled


class Stub:
    """A network whose score is a function of one picture."""

    def __init__(self, score: Any) -> None:
        self.card = {"calibration": {"x0": 0.5, "w": 0.2}}
        self.scores = lambda pictures: np.array([score(p) for p in pictures])


def detail(picture: np.ndarray) -> float:
    """What grain adds to."""
    return float(np.tanh(cv2.Laplacian(picture.mean(axis=2).astype(np.float32), cv2.CV_32F).std() / 10))


def coarse_detail(picture: np.ndarray) -> float:
    """Contrast at an eighth of the size, where little of the grain is left."""
    small = cv2.resize(picture, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    return float(small.mean(axis=2).std() / 100)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixtures, "CHANGES", {"blur": mixtures.CHANGES["blur"]})
    monkeypatch.setattr(mixtures, "VEILS", {"grain 5": mixtures.VEILS["grain 5"]})


def test_a_score_of_fine_detail_is_fooled_by_grain(few: None, face: np.ndarray) -> None:
    fooled, sound = (veiled.veils([face, face[:, ::-1]], {"IFQA": Stub(s)})[0] for s in (detail, coarse_detail))
    goal = "degraded faces whose score a veil raises by at most 2 points"
    assert any(line.startswith(goal) for line in fooled.missed)
    assert any(line.startswith(goal) for line in sound.met)


def test_two_networks_stand_side_by_side_and_only_the_first_has_goals(few: None, face: np.ndarray) -> None:
    networks = {"IFQA": Stub(coarse_detail), "before": Stub(detail)}
    by_veil, by_change = veiled.veils([face, face[:, ::-1]], networks)
    assert [row[0] for row in by_veil.rows] == ["grain 5", "all"] and [r[0] for r in by_change.rows] == ["blur", "all"]
    assert all(len(row) == len(by_veil.header) == 5 for row in by_veil.rows)
    assert len(by_veil.met) + len(by_veil.missed) == 2 and not by_change.met + by_change.missed


def test_light_is_judged_by_order_and_against_the_original(face: np.ndarray) -> None:
    def exposure(picture: np.ndarray) -> float:
        luma = picture.mean(axis=2) / 255
        return float(4 * np.percentile(luma, 90) * (1 - np.percentile(luma, 10)) * luma.std())

    section = veiled.light([face, face[:, ::-1]], {"IFQA": Stub(exposure)})
    assert [row[0] for row in section.rows] == list(mixtures.LIGHTS)
    goal = "rank correlation of score and severity within a face, dark gamma: 1"
    assert any(line.startswith(goal) for line in section.met)
    blind = veiled.light([face, face[:, ::-1]], {"IFQA": Stub(lambda picture: 0.5)})
    assert len(blind.missed) == 2 * len(mixtures.LIGHTS)


def test_scoring_everything_low_does_not_pass_for_sound(face: np.ndarray) -> None:
    faces = [face, face[:, ::-1]]
    assert any(line.startswith("clean faces") for line in veiled.forgiven(faces, {"IFQA": Stub(lambda p: 0.1)}).missed)
    sound = veiled.forgiven(faces, {"IFQA": Stub(lambda p: 0.95)})
    assert len(sound.met) == 2 and not sound.missed


def test_small_footage_must_pass_and_stay_below_large(face: np.ndarray) -> None:
    faces = [face, face[:, ::-1]]
    assert len(veiled.footage(faces, {"IFQA": Stub(detail)}, 13.0).met) == 2
    harsh = veiled.footage(faces, {"IFQA": Stub(lambda p: 0.1 * detail(p))}, 13.0)
    assert len(harsh.met) == len(harsh.missed) == 1


def test_drawings_must_be_rejected_and_faces_kept(face: np.ndarray) -> None:
    drawing = np.zeros_like(face)
    faces = [face, face[:, ::-1]]
    telling = veiled.unreal([drawing] * 2, faces, {"IFQA": Stub(lambda p: float(p.any()))}, 13.0)
    assert len(telling.met) == 2
    harsh = veiled.unreal([drawing] * 2, faces, {"IFQA": Stub(lambda p: 0.0)}, 13.0)
    assert len(harsh.met) == len(harsh.missed) == 1


@pytest.mark.parametrize("name", sorted(mixtures.CHANGES))
def test_every_degradation_grows_with_its_level(name: str, face: np.ndarray) -> None:
    first, last = (mixtures.CHANGES[name](face, level, 3) for level in (0, mixtures.LEVELS - 1))
    assert first.shape == last.shape == face.shape and first.dtype == last.dtype == np.uint8
    lost = [np.abs(p.astype(float) - face).mean() for p in (first, last)]
    assert 0 < lost[0] < lost[1]


@pytest.mark.parametrize("name", sorted(mixtures.VEILS))
def test_every_veil_repeats_exactly(name: str, face: np.ndarray) -> None:
    once, twice = (mixtures.VEILS[name](face, 3) for _ in range(2))
    assert np.array_equal(once, twice) and once.shape == face.shape and not np.array_equal(once, face)
