"""From pixels and network outputs to evidence and measures."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.engine import Engine
from streamgate.faces import Face, Status
from streamgate.frames import Array
from streamgate.networks.batcher import InferenceRequest
from streamgate.networks.crop_measures import CropOutput
from streamgate.networks.expression import NEEDED, ExpressionOutput
from streamgate.networks.recognizer import RecognizerOutput
from streamgate.scoring.context import ScoringContext
from streamgate.scoring.faces import FaceScorer
from streamgate.scoring.lockstep import no_floor, run_in_lockstep
from streamgate.sources import picture_of_rgb
from streamgate.sources.picture import PictureMaker
from streamgate.tracks import Candidate
from support.evaluators import NAMES, evaluator
from support.media import astronaut, astronaut_frames, make_frame

# The astronaut's eyes, nose and mouth corners in the 512 x 512 picture, by eye.
FACE = Face(
    np.array([185, 70, 265, 170], np.float32),
    np.array([[205, 106], [243, 106], [226, 131], [210, 145], [242, 145]], np.float32),
    0.99,
)
RECOGNISED = RecognizerOutput(np.ones(4, np.float32), np.float32(0.4), np.ones(3, np.float32))
AT_REST = ExpressionOutput(
    1.0, 2.0, {**dict.fromkeys(NEEDED, 0.05), "lidsLeft": 0.15, "lidsRight": 0.14}, np.zeros((5, 2)), 0.9
)


def role_of(request: InferenceRequest) -> str:
    """The network's role, whether or not the request needs all its outputs."""
    return request.role.partition(":")[0]


def scored(face: Face = FACE, **outputs: Any) -> Candidate:
    answers = {
        "pose": np.array([3.0, -2.0, 1.0]),
        "recognizer": RECOGNISED,
        "expression": AT_REST,
        "ifqa": CropOutput(0.7, np.zeros((256, 256), np.float32)),
        **outputs,
    }
    config = load_config("studio", ["advanced.refine=false"])
    context = ScoringContext(config, evaluator(), lambda wanted: [answers[role_of(one)] for one in wanted])
    candidate = Candidate(face, track_id=1, pts_seconds=0.0)
    steps = FaceScorer(context).score(candidate, picture_of_rgb(astronaut()), no_floor, full=True)
    run_in_lockstep([steps], context.infer)
    return candidate


def test_every_network_gives_its_measures() -> None:
    candidate = scored()
    raws = {name: candidate.measures[name].raw for name in NAMES}
    assert None not in raws.values()
    assert [raws[name] for name in ("ifqa", "occlusion", "eyes")] == pytest.approx([0.7, 0.9, 0.14])
    assert (raws["yaw"], raws["pitch"], raws["roll"]) == (3.0, -2.0, 1.0)
    assert raws["size"] == FACE.inter_eye and candidate.quality is not None


@pytest.mark.parametrize(
    ("outputs", "failed"),
    [
        ({"pose": np.array([math.nan, 0.0, 0.0])}, {"yaw", "pitch", "roll"}),
        ({"recognizer": replace(RECOGNISED, spread=np.float32(math.nan))}, {"serfiq"}),
        ({"expression": replace(AT_REST, signals={**AT_REST.signals, "lidsLeft": -math.inf})}, {"eyes"}),
        ({"expression": replace(AT_REST, visible=math.nan)}, {"occlusion"}),
        ({"ifqa": CropOutput(math.nan, np.zeros((256, 256), np.float32))}, {"ifqa"}),
    ],
)
def test_a_network_that_gives_no_number_makes_an_error_of_its_measures_alone(
    outputs: dict[str, Any], failed: set[str]
) -> None:
    candidate = scored(**outputs)
    assert {name for name in NAMES if candidate.measures[name].status is Status.ERROR} == failed
    assert candidate.quality is None and not candidate.gate.passed
    assert all(map(math.isfinite, candidate.evidence.values.values()))


def test_landmarks_depend_little_on_where_the_face_was_thought_to_be() -> None:
    config, picture = load_config("studio"), picture_of_rgb(astronaut())
    found: list[Array] = []
    with Engine(config, device="cpu") as engine:
        context = engine.context(config)
        for shift in (0.0, -5.0, 4.0):
            candidate = Candidate(Face(FACE.box + shift, FACE.landmarks + shift, 0.9), track_id=1, pts_seconds=0.0)
            run_in_lockstep([FaceScorer(context).score(candidate, picture, no_floor, full=True)], context.infer)
            assert candidate.refined
            found.append(candidate.face.landmarks)
    # Pupils and corners of the mouth by eye; 43 px between the eyes.
    seen = np.array([[204, 101], [247, 103], [203, 139], [243, 141]])
    assert np.abs(found[0][[0, 1, 3, 4]] - seen).max() < 3.5
    assert max(np.abs(one - found[0]).max() for one in found) < 0.5


def test_what_a_face_promised_is_corrected_by_what_was_seen_of_it() -> None:
    """Else later faces would have to look better than one that only seemed to be good before anybody looked."""
    blinking = replace(AT_REST, signals={**AT_REST.signals, "lidsLeft": 0.045})
    outputs = {"expression": blinking, "pose": np.zeros(3), "recognizer": RECOGNISED,
               "ifqa": CropOutput(0.7, np.zeros((256, 256), np.float32))}  # fmt: skip
    config = load_config("studio", ["advanced.refine=false"])
    context = ScoringContext(config, evaluator(), lambda wanted: [outputs[role_of(one)] for one in wanted])
    scorer, picture, candidate = (
        FaceScorer(context),
        picture_of_rgb(astronaut()),
        Candidate(FACE, track_id=1, pts_seconds=0.0),
    )
    scorer.prescore(candidate, picture)
    promised = candidate.bound
    run_in_lockstep([scorer.score(candidate, picture, no_floor, full=True)], context.infer)
    assert candidate.bound < promised - 8


def promised(*settings: str) -> float:
    """The potential of the face from its pixels alone."""
    context = ScoringContext(load_config("studio", settings), evaluator(*settings), lambda wanted: [])
    return FaceScorer(context).prescore(Candidate(FACE, track_id=1, pts_seconds=0.0), picture_of_rgb(astronaut()))


def test_a_face_that_is_too_small_promises_nothing_whatever_its_landmarks() -> None:
    side = 80  # of its box
    assert promised(f"measures.size.min={side}") > 0
    assert promised(f"measures.size.min={side / 0.95}") > 0
    assert promised(f"measures.size.min={side / 0.85}") == 0
    # Whether it touches the edge of the picture, however, depends on where the landmarks are.
    assert promised("measures.edge.min=1.0") > 0


def test_landmarks_far_from_the_face_are_not_taken() -> None:
    far = replace(AT_REST, landmarks=np.full((5, 2), 500.0))
    config = load_config("studio")
    outputs = {"detector": [FACE], "expression": far, "pose": np.zeros(3), "recognizer": RECOGNISED}
    context = ScoringContext(config, evaluator(), lambda wanted: [outputs.get(role_of(one)) for one in wanted])
    candidate = Candidate(FACE, track_id=1, pts_seconds=0.0, refined=True)
    run_in_lockstep([FaceScorer(context).run_expression(candidate, picture_of_rgb(astronaut()))], context.infer)
    assert np.array_equal(candidate.face.landmarks, FACE.landmarks)
    assert candidate.evidence.values["eyes_open"] == pytest.approx(0.14)


def test_a_face_outside_the_picture_is_an_error_not_an_exception() -> None:
    candidate = scored(Face(FACE.box + 900, FACE.landmarks + 900, 0.9))
    assert candidate.evidence.values["inside"] == 0.0
    assert candidate.evidence.failed.intersection(NAMES) == {"sharpness", "exposure"}
    assert candidate.measures["edge"].raw == 0.0


@pytest.mark.parametrize("way", ["prescore", "score"])
def test_a_combed_face_is_rejected_before_anything_is_measured(way: str) -> None:
    def nobody(wanted: Any) -> list[Any]:
        raise AssertionError("no network is needed")

    still = astronaut_frames(2, (512, 512), step=6.0)
    woven = still[0].copy()
    woven[1::2] = still[1][1::2]
    scorer = FaceScorer(ScoringContext(load_config("studio", ["advanced.refine=false"]), evaluator(), nobody))
    candidate, region = (
        Candidate(FACE, track_id=1, pts_seconds=0.0),
        PictureMaker("h264").picture(make_frame(woven)).region(FACE.box),
    )
    if way == "prescore":
        assert scorer.prescore(candidate, region) == 0.0
    run_in_lockstep([scorer.score(candidate, region, no_floor, full=True)], nobody)
    assert candidate.gate.reasons == ("corrupt",) and not candidate.gate.passed
    assert {measure.status for measure in candidate.measures.values()} == {Status.NOT_SCORED}
    # What is no video has no lines.
    assert not picture_of_rgb(woven).combed(FACE.box)
