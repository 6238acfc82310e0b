"""What is usual for a track's person, and faces that are compared with it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.faces import Evidence
from streamgate.frames import Frame, Picture
from streamgate.measures import eyes, real
from streamgate.networks.batcher import InferenceRequest
from streamgate.scoring.context import ScoringContext
from streamgate.scoring.evaluator import Evaluator
from streamgate.scoring.lockstep import Floor, Steps, run_in_lockstep
from streamgate.selection.candidates import TrackSelector
from streamgate.selection.reference import TrackReference
from streamgate.tracks import Candidate
from support.evaluators import calibration
from support.known_quality import FACE, PICTURE, KnownQuality


def reference_of(*openings: float) -> dict[str, float]:
    reference = TrackReference()
    for opening in openings:
        reference.add(Evidence({"eyes_open": opening}))
    return reference.usual


def test_it_is_the_90th_percentile_of_enough_faces() -> None:
    assert reference_of(0.2, 0.2, 0.2, 0.2) == {}
    assert reference_of(0.2, 0.2, 0.2, 0.2, 0.25) == {"eyes": 0.25}
    assert reference_of(*(index / 100 for index in range(1, 21)))["eyes"] == 0.18


def test_eyes_that_never_open_are_no_narrow_eyes() -> None:
    assert reference_of(*[0.02] * 50)["eyes"] == eyes.MEASURE.reference.lowest


def test_faces_without_a_figure_do_not_count_and_memory_does_not_grow() -> None:
    reference = TrackReference()
    for index in range(20_000):
        reference.add(Evidence({"eyes_open": 0.15 + 0.02 * np.sin(index)}))
        reference.add(Evidence())
    (seen,) = (seen for spec, _, seen in reference._seen if spec.name == "eyes")
    assert seen.total() == 20_000 and len(seen) < 100
    assert reference.usual["eyes"] == pytest.approx(0.169, abs=0.002)


class OpeningEyes(KnownQuality):
    """Scores by the eyes alone, whose opening is a function of time."""

    sees_expressions = True

    def __init__(self, opening: dict[float, float], usual: float) -> None:
        super().__init__(lambda pts: 0.0)
        used = ["measures.eyes.weight=1"]
        names = load_config().measures.recorded
        used += [f"measures.{name}.use=false" for name in names if name not in ("eyes", "size")]
        used += ["measures.size.weight=0", "measures.size.min=1", "output.max_upscale=0", "keep.min_quality=0"]
        self.config = load_config("studio", used)
        evaluator = Evaluator(self.config, calibration(used))
        self.context = ScoringContext(self.config, evaluator, lambda asks: [])
        self.opening, self.usual = opening, usual
        self.seen: dict[int, float] = {}

    def run_expression(self, candidate: Candidate, picture: Picture, *, real: bool = True) -> Steps:
        yield [InferenceRequest("expression", np.zeros((1, 1, 3), np.uint8))]
        self.seen[id(candidate.evidence)] = candidate.pts_seconds
        candidate.evidence.values["eyes_open"] = self.opening.get(round(candidate.pts_seconds, 2), self.usual)

    def potential(self, candidate: Candidate, picture: Picture) -> float:
        self._conclude(candidate, picture)
        candidate.bound = self.context.evaluator.bound(candidate.measures)
        return 0.0 if candidate.gate.reasons else candidate.bound

    def score(
        self, candidate: Candidate, picture: Picture, floor: Floor, *, full: bool, real_from: Candidate | None = None
    ) -> Steps:
        yield from self.run_expression(candidate, picture)
        self.scored.append(candidate.pts_seconds)
        self._conclude(candidate, picture)

    def _conclude(self, candidate: Candidate, picture: Picture) -> None:
        candidate.evidence.values["inter_eye"] = 100.0
        self.context.evaluator.evaluate(candidate, picture.width, picture.height)


def track(scorer: OpeningEyes, seconds: float, *settings: str) -> TrackSelector:
    """At 25 fps, a detection in every frame."""
    config = scorer.config.model_copy(update={"exhaustive": "exhaustive" in settings})
    selector = TrackSelector(1, config, scorer)
    for index in range(round(seconds * 25)):
        selector.detected(Frame(PICTURE, index / 25, frame_index=index), FACE)
        if selector.ready():
            run_in_lockstep([selector.score_window()], lambda asks: [ask.role for ask in asks])
    run_in_lockstep([selector.score_window(final=True)], lambda asks: [ask.role for ask in asks])
    return selector


def test_narrow_eyes_are_compared_with_themselves_and_closed_ones_are_found() -> None:
    scorer = OpeningEyes({1.0: 0.02, 1.04: 0.02, 1.08: 0.02}, usual=0.11)
    selector = track(scorer, 4.0)
    (kept,) = selector.keeper.finish()
    assert kept.candidate.measures["eyes"].scalar > 90 and kept.candidate.gate.passed
    assert kept.candidate.evidence.values["eyes_usual"] == pytest.approx(0.11)
    closed = [one for one in selector.drain() if one.evidence.values.get("eyes_open") == 0.02]
    assert closed and all(one.gate.reasons == ("eyes_closed",) for one in closed)


def test_faces_are_evenly_spaced_and_finalists_are_judged_by_what_the_whole_track_showed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added: list[Evidence] = []
    add = TrackReference.add
    monkeypatch.setattr(TrackReference, "add", lambda self, evidence: (added.append(evidence), add(self, evidence))[1])
    # Half open for a second, which then looks usual; wide open for the rest.
    half = {round(index / 25, 2): 0.1 for index in range(26)}
    scorer = OpeningEyes(half, usual=0.2)
    selector = track(scorer, 3.0)
    evenly = [scorer.seen[id(evidence)] for evidence in added]
    assert len(evenly) >= 15
    assert all(later - before >= 0.12 - 1e-6 for before, later in pairwise(evenly))
    assert selector.reference.usual == {"eyes": pytest.approx(0.2)}
    (kept,) = selector.keeper.finish()
    assert kept.candidate.pts_seconds > 1.0
    told = selector.drain()
    assert all(one.evidence.values["eyes_usual"] == pytest.approx(0.2) for one in told if selector.keeper.holds(one))
    # A track that shows the half open eyes last ends otherwise than it looked on the way.
    scorer = OpeningEyes({round(2 + index / 25, 2): 0.2 for index in range(26)}, usual=0.1)
    (kept,) = track(scorer, 3.0).keeper.finish()
    assert kept.candidate.pts_seconds >= 2.0


def test_every_face_scored_ends_with_the_same_reference() -> None:
    opening = {round(index / 25, 2): 0.15 + 0.03 * np.sin(index / 7) for index in range(100)}
    usual = [track(OpeningEyes(opening, 0.15), 4.0, mode).reference.usual for mode in ("", "exhaustive")]
    assert usual[0] == usual[1] != {}


def test_what_is_judged_as_a_whole_is_the_tracks_median_once_there_are_enough_faces() -> None:
    reference = TrackReference()
    for number, value in enumerate((0.9, 0.3, 0.2, 0.95, 0.1)):
        assert ("real" in reference.usual) == (number > 4)
        reference.add(Evidence(values={"real": value}))
    assert reference.usual["real"] == 0.3
    assert real.MEASURE.compared(0.9, Evidence(values={"real": 0.9})) == 0.9
    assert real.MEASURE.compared(0.9, Evidence(values={"real": 0.9, "real_usual": 0.3})) == 0.3
