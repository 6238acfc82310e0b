"""Who a track shows."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.faces import Evidence, Face, GateResult, Measure, Pose
from streamgate.selection.template import TemplateSum, is_sure
from streamgate.tracks import Candidate


def face(vector: list[float], serfiq: float = 90, yaw: float = 0, eyes: float = 60, reasons: tuple = ()) -> Candidate:
    landmarks = np.zeros((5, 2), np.float32)
    landmarks[1, 0] = eyes
    return Candidate(
        Face(np.array([0, 0, 100, 100], np.float32), landmarks, 0.9), track_id=1, pts_seconds=0.0,
        evidence=Evidence(embedding=np.array(vector, np.float32), pose=Pose(yaw, 0.0, 0.0)),
        measures={"serfiq": Measure.ok(0.9, serfiq)},
        gate=GateResult(False, reasons),
    )


def test_better_faces_weigh_more_whatever_the_length_of_their_embeddings() -> None:
    total = TemplateSum()
    for candidate in (face([2, 0], serfiq=80), face([0, 9], serfiq=80, yaw=45)):
        total.add(candidate)
    found = total.mean()
    assert found is not None
    assert found.vector == pytest.approx(np.array([2, 1]) / np.sqrt(5))
    assert (found.faces, found.weight) == (2, pytest.approx(0.6))
    assert found.agreement == pytest.approx(np.hypot(0.8, 0.4) / 1.2)


@pytest.mark.parametrize(
    "poor", [face([0, 1], serfiq=20), face([0, 1], eyes=9), face([0, 1], reasons=("yaw",)), face([0, 0])]
)
def test_poor_faces_do_not_speak(poor: Candidate) -> None:
    total = TemplateSum()
    total.add(poor)
    assert total.mean() is None
    total.add(face([1, 0]))
    found = total.mean()
    assert found is not None and found.vector == pytest.approx([1, 0])


def test_a_track_of_two_strangers_is_not_sure() -> None:
    one, two = TemplateSum(), TemplateSum()
    for _ in range(4):
        one.add(face([1, 0.3]))
        two.add(face([1, 0]))
        one.add(face([1, -0.3]))
        two.add(face([0, 1]))
    sure, mixed = one.mean(), two.mean()
    assert sure is not None and mixed is not None
    two.add(face([-1, 0]))
    worse = two.mean()
    assert is_sure(sure) and worse is not None and not is_sure(worse)
