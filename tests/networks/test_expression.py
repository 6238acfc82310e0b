"""The expression network's adapter, and the figures that measures make of its signals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from streamgate import Gate
from streamgate.errors import WeightsError
from streamgate.measures import expression, eyes, gaze, mouth
from streamgate.networks import Networks
from streamgate.networks.expression import NEEDED, ExpressionOutput
from streamgate.weights.store import embedded_folder
from support.media import astronaut

QUIET = {**dict.fromkeys(NEEDED, 0.0), "lidsLeft": 0.16, "lidsRight": 0.15}


def seen(yaw: float = 0.0, pitch: float = 0.0, **signals: float) -> ExpressionOutput:
    return ExpressionOutput(yaw, pitch, {**QUIET, **signals}, np.zeros((5, 2)))


def test_measures_read_the_signals() -> None:
    assert eyes.MEASURE.read(seen()) == 0.15
    assert mouth.MEASURE.read(seen(lipGap=0.1, jawOpen=0.2)) == pytest.approx(0.2)
    smile = {"mouthSmileLeft": 0.8, "mouthSmileRight": 1.0}
    assert mouth.MEASURE.read(seen(lipGap=0.1, **smile)) == pytest.approx(0.01)
    assert expression.MEASURE.read(seen(browInnerUp=0.2, mouthFunnel=0.1))["expression"] == pytest.approx(0.2)
    assert expression.MEASURE.read(seen(browDownLeft=0.4, browDownRight=0.2))["expression"] == pytest.approx(0.09)
    stretched = expression.MEASURE.read(seen(lipGap=0.1, mouthStretchLeft=0.2, mouthUpperUpRight=0.2))
    assert stretched == pytest.approx({"expression": 0.13, "strain": 0.28})
    laughing = expression.MEASURE.read(seen(lipGap=0.1, mouthStretchLeft=0.2, mouthUpperUpRight=0.2, **smile))
    assert laughing["strain"] < 0 < laughing["expression"]


def test_the_gaze_is_where_head_and_eyes_look_together() -> None:
    ahead = gaze.MEASURE.read(seen(pitch=-4.0))["gaze"]
    assert ahead == pytest.approx(0.0)
    # A head turned to larger x, eyes turned back by as much: the person's left eye looks in, the right one out.
    back = {"eyeLookInLeft": 0.5, "eyeLookOutRight": 0.5}
    assert gaze.MEASURE.read(seen(yaw=15.0, pitch=-4.0, **back))["gaze"] == pytest.approx(0.0)
    assert gaze.MEASURE.read(seen(pitch=-4.0, **back))["gaze"] == pytest.approx(15.0)
    down = {"eyeLookDownLeft": 0.4, "eyeLookDownRight": 0.4}
    assert gaze.MEASURE.read(seen(pitch=-4.0, **down))["gaze"] == pytest.approx(12.0)


def test_crossed_eyes_look_away() -> None:
    crossed = {"eyeLookInLeft": 0.15, "eyeLookInRight": 0.15}
    assert gaze.MEASURE.read(seen(pitch=-4.0, **crossed))["gaze"] > 10.0
    barely = {"eyeLookInLeft": 0.04, "eyeLookInRight": 0.04}
    assert gaze.MEASURE.read(seen(pitch=-4.0, **barely))["gaze"] == pytest.approx(0.0)


def test_a_smile_with_teeth_ranks_lower_and_is_never_rejected() -> None:
    with Gate(device="cpu") as gate:
        (face,) = gate.score(astronaut())
    assert not {"mouth_open", "grimace"} & set(face.gate.reasons)
    assert face.measures["expression"].scalar < 50


def covered(picture: np.ndarray, box: tuple[int, int, int, int], colour: tuple[int, int, int]) -> np.ndarray:
    """A picture with a box x1, y1, x2, y2 over it."""
    x1, y1, x2, y2 = box
    changed = picture.copy()
    changed[y1:y2, x1:x2] = colour
    return changed


def test_what_lies_over_eyes_mouth_or_chin_is_seen_and_what_lies_beside_is_not() -> None:
    """The astronaut's eyes are at y = 106, her mouth at 145, her chin at 165, her cheeks between x = 185 and 265."""
    picture = astronaut()
    over = {"mouth": (150, 136, 300, 156), "chin": (150, 153, 300, 185), "eye": (190, 95, 222, 118)}
    beside = {"collar": (150, 190, 300, 230), "hair": (262, 60, 300, 200)}
    with Gate(device="cpu") as gate:
        bare, *faces = [gate.score(covered(picture, box, (40, 70, 160)))[0] for box in (
            (0, 0, 1, 1), *over.values(), *beside.values())]  # fmt: skip
    rejected = ["occluded" in face.gate.reasons for face in faces]
    assert rejected == [True] * len(over) + [False] * len(beside)
    assert bare.measures["occlusion"].scalar > 80


def test_batches_change_nothing_and_names_come_from_the_card() -> None:
    crops = np.random.default_rng(1).integers(0, 255, (3, 144, 128, 3), np.uint8)
    with Networks.open("embedded", "cpu") as networks:
        assert networks.expression is not None
        together = networks.expression.run(crops)
        (alone,) = networks.expression.run(crops[1:2])
        assert (together[1].signals, together[1].yaw) == (alone.signals, alone.yaw)
        assert np.array_equal(together[1].landmarks, alone.landmarks)
        assert set(NEEDED) <= set(together[0].signals)
        with pytest.raises(ValueError, match="144, 128"):
            networks.expression.run(crops[:, :128])


def card_with(folder: Path, change: object) -> Path:
    shutil.copytree(embedded_folder() / "expression", folder / "expression")
    card = folder / "expression" / "card.json"
    told = json.loads(card.read_text())
    told["output"] = change
    card.write_text(json.dumps(told))
    return folder


def test_without_real_the_other_outputs_are_the_same() -> None:
    network = Networks.open("embedded", "cpu").expression
    assert network is not None
    crops = np.random.default_rng(0).integers(0, 256, (3, 144, 128, 3), np.uint8)
    for some, everything in zip(network.run(crops, real=False), network.run(crops), strict=True):
        assert some.real is None and everything.real is not None and 0 <= everything.real <= 1
        assert some.signals == everything.signals and some.visible == everything.visible
        assert np.array_equal(some.landmarks, everything.landmarks)


def test_a_card_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    lacking = card_with(tmp_path / "lacking", {"signals": ["jawOpen"]})
    with pytest.raises(WeightsError, match="lacks the signal"):
        Networks.open(f"{lacking},embedded", "cpu")
    pointless = card_with(tmp_path / "pointless", {"signals": list(NEEDED)})
    with pytest.raises(WeightsError, match="lacks the point"):
        Networks.open(f"{pointless},embedded", "cpu")
    points = json.loads((embedded_folder() / "expression" / "card.json").read_text())["output"]["points"]
    longer = card_with(tmp_path / "longer", {"signals": [*NEEDED, *map(str, range(200))], "points": points})
    with Networks.open(f"{longer},embedded", "cpu") as networks, pytest.raises(WeightsError, match="its card lists"):
        networks.expression.run(np.zeros((1, 144, 128, 3), np.uint8))
